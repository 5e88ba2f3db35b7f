//! `[gateway]`: settings of this gateway that belong to no peer and no rule.

use std::path::{Path, PathBuf};

use gateway_ike::config::{EndpointConfig, SMALLEST_FRAGMENT};

use super::document::Section;
use super::error::{Fault, PolicyError};
use super::value;

/// What `[gateway]` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The network interfaces on which protected traffic leaves and arrives; empty: the one
    /// with the default route.
    pub interfaces: Vec<String>,
    /// Name of the XFRM interface.
    pub xfrm_interface: String,
    /// Its XFRM interface ID, also of SAs and policies; not 0.
    pub if_id: u32,
    /// Directory on bpffs for programs, links and maps; absolute.
    pub pin_dir: PathBuf,
    /// Path of the control socket; absolute, at most 107 octets.
    pub control_socket: PathBuf,
    /// Directory of what outlives a restart; absolute.
    pub state_dir: PathBuf,
    /// Where the name servers are written that peers tell us; absolute.
    pub resolv_conf: Option<PathBuf>,
    /// Limits of the log and of what is kept for status.
    pub journal: JournalLimits,
    /// Limits of the IKE endpoint.
    pub endpoint: EndpointConfig,
}

/// How much others can make the gateway write and keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalLimits {
    /// Log lines a second that one peer can cause; ten times as many at once.
    pub peer_log_rate: u32,
    /// Log lines a second that all can cause together who have not been authenticated; ten times
    /// as many at once.
    pub stranger_log_rate: u32,
    /// Refusals that are kept of peers, and as many of those who have not been authenticated.
    pub refusals_kept: usize,
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self { peer_log_rate: 50, stranger_log_rate: 5, refusals_kept: 64 }
    }
}

/// Where programs, links and maps are pinned unless the files say otherwise.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/gateway";

impl Default for Settings {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            xfrm_interface: "ipsec0".to_owned(),
            if_id: 71,
            pin_dir: PathBuf::from(DEFAULT_PIN_DIR),
            control_socket: PathBuf::from("/run/gateway/control.sock"),
            state_dir: PathBuf::from("/var/lib/gateway"),
            resolv_conf: None,
            journal: JournalLimits::default(),
            endpoint: EndpointConfig::default(),
        }
    }
}

/// Reads `[gateway]`.
pub(super) fn read(section: &mut Section<'_>, warnings: &mut Vec<PolicyError>) -> Settings {
    let default = Settings::default();
    let limits = default.endpoint;
    let settings = Settings {
        interfaces: section.list("interfaces", value::interface).unwrap_or_default(),
        xfrm_interface: section
            .optional("xfrm-interface", value::interface)
            .unwrap_or(default.xfrm_interface),
        if_id: section.number("if-id").unwrap_or(default.if_id),
        pin_dir: section.optional("pin-dir", value::absolute_path).unwrap_or(default.pin_dir),
        control_socket: section
            .optional("control-socket", value::socket_path)
            .unwrap_or(default.control_socket),
        state_dir: section.optional("state-dir", value::absolute_path).unwrap_or(default.state_dir),
        resolv_conf: section.optional("resolv-conf", value::own_file),
        journal: JournalLimits {
            peer_log_rate: section.number("peer-log-rate").unwrap_or(default.journal.peer_log_rate),
            stranger_log_rate: section
                .number("stranger-log-rate")
                .unwrap_or(default.journal.stranger_log_rate),
            refusals_kept: section.number("refusals-kept").unwrap_or(default.journal.refusals_kept),
        },
        endpoint: EndpointConfig {
            retransmit_initial: section
                .time("retransmit-initial")
                .unwrap_or(limits.retransmit_initial),
            retransmit_tries: section.number("retransmit-tries").unwrap_or(limits.retransmit_tries),
            init_size_limit: section.number("init-size-limit").unwrap_or(limits.init_size_limit),
            cookie_threshold: section.number("cookie-threshold").unwrap_or(limits.cookie_threshold),
            half_open_limit: section.number("half-open-limit").unwrap_or(limits.half_open_limit),
            half_open_address_limit: section
                .number("half-open-address-limit")
                .unwrap_or(limits.half_open_address_limit),
            half_open_timeout: section
                .time("half-open-timeout")
                .unwrap_or(limits.half_open_timeout),
            peer_ike_sa_limit: section
                .number("peer-ike-sa-limit")
                .unwrap_or(limits.peer_ike_sa_limit),
            job_limit: section.number("job-limit").unwrap_or(limits.job_limit),
            unprotected_answers_per_second: section
                .number("unprotected-answer-rate")
                .unwrap_or(limits.unprotected_answers_per_second),
            eap_message_limit: section
                .number("eap-message-limit")
                .unwrap_or(limits.eap_message_limit),
            reassembly_timeout: section
                .time("reassembly-timeout")
                .unwrap_or(limits.reassembly_timeout),
            ike_sa_limit: section.number("ike-sa-limit").unwrap_or(limits.ike_sa_limit),
            child_sa_limit: section.number("child-sa-limit").unwrap_or(limits.child_sa_limit),
            peer_child_sa_limit: section
                .number("peer-child-sa-limit")
                .unwrap_or(limits.peer_child_sa_limit),
            eap_timeout: section.time("eap-timeout").unwrap_or(limits.eap_timeout),
            eap_round_limit: section.number("eap-round-limit").unwrap_or(limits.eap_round_limit),
            replay_window: section.number("replay-window").unwrap_or(limits.replay_window),
            keepalive_interval: section
                .optional("keepalive-interval", value::interval)
                .unwrap_or(limits.keepalive_interval),
            fragment_size: section.number("fragment-size").unwrap_or(limits.fragment_size),
            reassembly_limit: section.number("reassembly-limit").unwrap_or(limits.reassembly_limit),
            certificate_chain_limit: section
                .number("certificate-chain-limit")
                .unwrap_or(limits.certificate_chain_limit),
            certificate_size_limit: section
                .number("certificate-size-limit")
                .unwrap_or(limits.certificate_size_limit),
            ..limits
        },
    };
    if settings.interfaces.contains(&settings.xfrm_interface) {
        let message =
            format!("the XFRM interface {:?} is among `interfaces`", settings.xfrm_interface);
        section.fault(
            "xfrm-interface",
            Fault::expected(message, "the name of an interface of its own"),
        );
    }
    check_resolv_conf(section, &settings, warnings);
    let fragment_size = settings.endpoint.fragment_size;
    if (1..SMALLEST_FRAGMENT).contains(&fragment_size) {
        let message = format!("{fragment_size} octets leave no room beside the headers");
        let expected = format_args!("{SMALLEST_FRAGMENT} or more, or 0 for no fragments");
        section.fault("fragment-size", Fault::expected(message, expected));
    }
    let EndpointConfig { cookie_threshold, half_open_limit, .. } = settings.endpoint;
    if cookie_threshold > half_open_limit {
        let message =
            format!("cookies are asked for above {cookie_threshold} half-open IKE SAs, but");
        let message = format!("{message} `half-open-limit` is {half_open_limit}");
        section.fault("cookie-threshold", Fault::expected(message, "a lower number"));
    }
    settings
}

/// The file of `resolv-conf` must not replace another one of ours or of the system. Its directory
/// may be made later, so that its absence is a warning; that of the control socket we make.
fn check_resolv_conf(
    section: &mut Section<'_>,
    settings: &Settings,
    warnings: &mut Vec<PolicyError>,
) {
    let Some(path) = &settings.resolv_conf else { return };
    if *path == settings.control_socket {
        let message = "that is the control socket";
        section.fault("resolv-conf", Fault::expected(message, "a file of its own"));
    }
    if path == Path::new("/etc/resolv.conf") {
        let message = "the system's own name servers would be lost";
        let expected = "a file of its own, to which that one may be a link";
        section.fault("resolv-conf", Fault::expected(message, expected));
    }
    let Some(directory) = path.parent() else { return };
    if !directory.is_dir() && Some(directory) != settings.control_socket.parent() {
        let message = format!("there is no directory {}", directory.display());
        let fault = Fault::new(message).hint("nothing is written there until it is made");
        warnings.push(section.error("resolv-conf", fault));
    }
}
