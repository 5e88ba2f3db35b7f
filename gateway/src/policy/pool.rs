//! `[pool.NAME]`: addresses for peers that ask.

use std::sync::Arc;

use gateway_ike::config::Pool;

use super::document::Section;
use super::value;

/// Reads `[pool.NAME]`; `None` if anything was wrong.
pub(super) fn read(section: &mut Section<'_>, name: &str) -> Option<Pool> {
    let addresses = section.required_list("addresses", value::prefix);
    let dns = section.list("dns", value::address);
    if section.failed() {
        return None;
    }
    Some(Pool { name: Arc::from(name), addresses: addresses?, dns: dns.unwrap_or_default() })
}
