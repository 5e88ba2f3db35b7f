//! The manual and the schema say what the code does.

use super::*;

#[test]
fn the_defaults_of_the_manual_are_those_of_the_code() {
    let written = |keys: &[keys::Key]| {
        keys.iter().fold(String::new(), |mut text, key| {
            if let keys::Otherwise::Default(value) = key.otherwise {
                writeln!(text, "{} = {value}", key.name).unwrap();
            }
            text
        })
    };
    let rule = "[rule.r]\naction = \"protect\"\npeer = \"p\"\nlocal = [\"10.1.0.0/24\"]\nremote = [\"10.2.0.0/24\"]\n";
    let without = loaded(&format!("{PEER}{rule}"));
    let with = loaded(&format!(
        "[gateway]
{}{PEER}{}{rule}{}",
        written(keys::GATEWAY),
        written(keys::PEER),
        written(keys::RULE),
    ));
    assert_eq!((with.settings, with.policies), (without.settings, without.policies));
}

#[test]
fn the_keys_marked_as_required_are_those_that_are_missed() {
    for (kind, keys) in
        [("peer", keys::PEER), ("pool", keys::POOL), ("user", keys::USER), ("rule", keys::RULE)]
    {
        let text = errors(&format!("[{kind}.x]\n"));
        for key in keys {
            let required = matches!(key.otherwise, keys::Otherwise::Required);
            let missed = text.contains(&format!("{kind}.x: `{}` is missing\n", key.name));
            assert_eq!(required, missed, "{kind} {}: {text}", key.name);
        }
    }
}

#[test]
fn the_manual_has_the_table_of_every_section() {
    let path = policies().join("README.md");
    let mut text = fs::read_to_string(&path).unwrap();
    for (heading, keys) in [
        ("[gateway]", keys::GATEWAY),
        ("[peer.NAME]", keys::PEER),
        ("[pool.NAME]", keys::POOL),
        ("[user.NAME]", keys::USER),
        ("[rule.NAME]", keys::RULE),
    ] {
        let start = text.find(&format!("## `{heading}`")).unwrap_or_else(|| panic!("no {heading}"));
        let start = start + text[start..].find("| Key |").unwrap();
        let end = start + text[start..].find("\n\n").unwrap() + 1;
        text.replace_range(start..end, &schema::manual(keys));
    }
    let start = text.find("## Limits").unwrap();
    let start = start + text[start..].find("| What |").unwrap();
    let end = start + text[start..].find("\n\n").unwrap() + 1;
    text.replace_range(start..end, &limits::manual());
    for proposal in keys::IKE_PROPOSALS.iter().chain(keys::ESP_PROPOSALS) {
        assert!(text.contains(&format!("\"{proposal}\"")), "{proposal} is not in the manual");
    }
    assert_file(&path, &text);
}

#[test]
fn the_schema_beside_the_manual_is_that_of_the_code() {
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    assert_file(&policies().join("policy.schema.json"), &text);
}
