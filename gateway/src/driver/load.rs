//! Loading policy files that this gateway can also carry out: the one way in for `run`, `check`
//! and a reload, so that what `check` passes is never refused later.

use std::path::Path;

use crate::kernel::beyond_limits;
use crate::policy::{self, Loaded, PolicyError};

/// Loads a directory of policy files, and refuses what the data path has no room for.
///
/// This blocks: an asynchronous caller runs it on a thread of its own.
///
/// # Errors
/// Everything that is wrong in any file, sorted by file and line.
pub fn load(directory: &Path) -> Result<Loaded, Vec<PolicyError>> {
    let loaded = policy::load(directory)?;
    let mut errors: Vec<PolicyError> = beyond_limits(&loaded.policies)
        .into_iter()
        .map(|excess| loaded.error(excess.rule.as_ref(), &excess.message, excess.hint))
        .collect();
    if errors.is_empty() {
        return Ok(loaded);
    }
    errors.sort();
    Err(errors)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;

    use super::*;

    #[test]
    fn what_has_no_room_is_an_error_of_the_file_at_its_rule() {
        let directory = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for port in 1..=17 {
            writeln!(
                text,
                "[rule.r{port:02}]\naction = \"discard\"\nlocal = [\"10.1.0.0/16\"]\n\
                 remote = [\"10.2.0.0/16\"]\nprotocol = \"tcp\"\nremote-ports = {port}"
            )
            .unwrap();
        }
        fs::write(directory.path().join("a.toml"), text).unwrap();
        let errors = load(directory.path()).unwrap_err();
        assert_eq!(errors.len(), 1);
        let words = errors[0].to_string();
        let place = errors[0].field.clone().unwrap();
        let number: usize = place.strip_prefix("rule.r").unwrap().parse().unwrap();
        // Each rule has six lines; its name stands in the first.
        assert!(words.contains(&format!("a.toml:{}:7: {place}: ", number * 6 - 5)), "{words}");
        assert!(
            words.ends_with(
                ": more than 16 rules differ from this one only by ports: merge port ranges"
            ),
            "{words}"
        );
    }
}
