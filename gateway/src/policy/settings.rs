//! `[gateway]`: settings of this gateway that belong to no peer and no rule.

use core::net::SocketAddr;
use std::path::{Path, PathBuf};

use gateway_ike::config::{EndpointConfig, InitLimits, SMALLEST_FRAGMENT};

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
    /// Whether source NAT of this host is kept from what the rules select.
    pub nat_exemption: bool,
    /// Whether ESP to us that is of no SA of ours is dropped where it comes in.
    pub drop_unknown_esp: bool,
    /// Whether inbound SAs are spread over the CPUs.
    pub steer_cpus: bool,
    /// Directory on bpffs for programs, links and maps; absolute.
    pub pin_dir: PathBuf,
    /// Path of the control socket; absolute, at most 107 octets.
    pub control_socket: PathBuf,
    /// Where metrics are served.
    pub metrics_listen: Option<SocketAddr>,
    /// Directory of what outlives a restart; absolute.
    pub state_dir: PathBuf,
    /// Where the name servers are written that peers tell us; absolute.
    pub resolv_conf: Option<PathBuf>,
    /// Limits of the log and of what is kept for status.
    pub journal: JournalLimits,
    /// Limits of ESP that comes before its SA.
    pub early: EarlyLimits,
    /// Limits of the IKE endpoint.
    pub endpoint: EndpointConfig,
    /// What the XDP program keeps from it.
    pub ike: InitLimits,
}

/// How much others can make the gateway write and keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalLimits {
    /// Log lines a second that one peer can cause; ten times as many at once.
    pub peer_log_rate: u32,
    /// Log lines a second that all can cause together who have not been authenticated; ten times
    /// as many at once.
    pub stranger_log_rate: u32,
    /// Log lines a second about what could not be done, whoever causes it; ten times as many at once.
    pub complaint_log_rate: u32,
    /// Refusals that are kept of peers, and as many of those who have not been authenticated.
    pub refusals_kept: usize,
    /// Characters of the text of a line, and of each of its fields.
    pub log_line_limit: usize,
    /// Peers and users of whom it is known how many lines they have caused of late; users beside them
    /// share what is their peer's.
    pub user_log_limit: usize,
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self {
            peer_log_rate: 50,
            stranger_log_rate: 5,
            complaint_log_rate: 5,
            refusals_kept: 64,
            log_line_limit: 1024,
            user_log_limit: 1024,
        }
    }
}

/// How much is kept of ESP that comes before its SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlyLimits {
    /// SAs for which it is, at once.
    pub sa_limit: usize,
    /// Octets for each.
    pub size_limit: usize,
}

impl Default for EarlyLimits {
    fn default() -> Self {
        Self { sa_limit: 16, size_limit: 262_144 }
    }
}

/// Where programs, links and maps are pinned unless the files say otherwise.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/gateway";

/// Where what outlives a restart is kept unless the files say otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/gateway";

impl Default for Settings {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            xfrm_interface: "ipsec0".to_owned(),
            if_id: 71,
            nat_exemption: true,
            drop_unknown_esp: true,
            steer_cpus: false,
            pin_dir: PathBuf::from(DEFAULT_PIN_DIR),
            control_socket: PathBuf::from("/run/gateway/control.sock"),
            metrics_listen: None,
            state_dir: PathBuf::from(DEFAULT_STATE_DIR),
            resolv_conf: None,
            journal: JournalLimits::default(),
            early: EarlyLimits::default(),
            endpoint: EndpointConfig::default(),
            ike: InitLimits::default(),
        }
    }
}

/// Reads `[gateway]`.
pub(super) fn read(section: &mut Section<'_>, warnings: &mut Vec<PolicyError>) -> Settings {
    let default = Settings::default();
    let mut settings = Settings {
        interfaces: section.list("interfaces", value::interface).unwrap_or_default(),
        xfrm_interface: section
            .optional("xfrm-interface", value::interface)
            .unwrap_or(default.xfrm_interface),
        if_id: section.number("if-id").unwrap_or(default.if_id),
        nat_exemption: section.flag("nat-exemption", default.nat_exemption),
        drop_unknown_esp: section.flag("drop-unknown-esp", default.drop_unknown_esp),
        steer_cpus: section.flag("steer-cpus", default.steer_cpus),
        pin_dir: section.optional("pin-dir", value::absolute_path).unwrap_or(default.pin_dir),
        control_socket: section
            .optional("control-socket", value::socket_path)
            .unwrap_or(default.control_socket),
        metrics_listen: section.optional("metrics-listen", value::listener),
        state_dir: section.optional("state-dir", value::absolute_path).unwrap_or(default.state_dir),
        resolv_conf: section.optional("resolv-conf", value::own_file),
        journal: read_journal(section),
        early: EarlyLimits {
            sa_limit: section.number("early-esp-sa-limit").unwrap_or(default.early.sa_limit),
            size_limit: section.number("early-esp-size-limit").unwrap_or(default.early.size_limit),
        },
        endpoint: read_endpoint(section),
        ike: read_init_limits(section),
    };
    // What the endpoint would not answer need not reach it.
    settings.ike.other_version_rate = settings.endpoint.unprotected_answers_per_second.max(1);
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

fn read_journal(section: &mut Section<'_>) -> JournalLimits {
    let mut read = JournalLimits::default();
    set(&mut read.peer_log_rate, section.number("peer-log-rate"));
    set(&mut read.stranger_log_rate, section.number("stranger-log-rate"));
    set(&mut read.complaint_log_rate, section.number("complaint-log-rate"));
    set(&mut read.refusals_kept, section.number("refusals-kept"));
    set(&mut read.log_line_limit, section.number("log-line-limit"));
    set(&mut read.user_log_limit, section.number("user-log-limit"));
    read
}

fn read_endpoint(section: &mut Section<'_>) -> EndpointConfig {
    let mut read = EndpointConfig::default();
    set(&mut read.retransmit_initial, section.time("retransmit-initial"));
    set(&mut read.retransmit_tries, section.number("retransmit-tries"));
    set(&mut read.init_size_limit, section.number("init-size-limit"));
    set(&mut read.cookie_threshold, section.number("cookie-threshold"));
    set(&mut read.half_open_limit, section.number("half-open-limit"));
    set(&mut read.half_open_address_limit, section.number("half-open-address-limit"));
    set(&mut read.half_open_timeout, section.time("half-open-timeout"));
    set(&mut read.peer_ike_sa_limit, section.number("peer-ike-sa-limit"));
    set(&mut read.job_limit, section.number("job-limit"));
    set(&mut read.unprotected_answers_per_second, section.number("unprotected-answer-rate"));
    set(&mut read.eap_message_limit, section.number("eap-message-limit"));
    set(&mut read.reassembly_timeout, section.time("reassembly-timeout"));
    set(&mut read.ike_sa_limit, section.number("ike-sa-limit"));
    set(&mut read.child_sa_limit, section.number("child-sa-limit"));
    set(&mut read.peer_child_sa_limit, section.number("peer-child-sa-limit"));
    set(&mut read.eap_timeout, section.time("eap-timeout"));
    set(&mut read.eap_round_limit, section.number("eap-round-limit"));
    set(&mut read.replay_window, section.number("replay-window"));
    set(&mut read.keepalive_interval, section.optional("keepalive-interval", value::interval));
    set(&mut read.fragment_size, section.number("fragment-size"));
    set(&mut read.reassembly_limit, section.number("reassembly-limit"));
    set(&mut read.certificate_chain_limit, section.number("certificate-chain-limit"));
    set(&mut read.certificate_size_limit, section.number("certificate-size-limit"));
    set(&mut read.init_transform_limit, section.number("init-transform-limit"));
    set(&mut read.refused_initiator_limit, section.number("refused-initiator-limit"));
    set(&mut read.refusal_size_limit, section.number("refusal-size-limit"));
    set(&mut read.old_keys_limit, section.number("old-keys-limit"));
    set(&mut read.selector_pair_limit, section.number("selector-pair-limit"));
    set(&mut read.followup_ke_limit, section.number("followup-ke-limit"));
    set(&mut read.peer_address_limit, section.number("peer-address-limit"));
    set(&mut read.cfg_attribute_limit, section.number("cfg-attribute-limit"));
    set(&mut read.name_server_limit, section.number("name-server-limit"));
    set(&mut read.deleted_spi_limit, section.number("deleted-spi-limit"));
    read
}

fn read_init_limits(section: &mut Section<'_>) -> InitLimits {
    let mut read = InitLimits::default();
    set(&mut read.init_rate, section.number("init-rate"));
    set(&mut read.prefix_rate, section.number("init-prefix-rate"));
    set(&mut read.prefix_burst, section.number("init-prefix-burst"));
    set(&mut read.prefix_v4, section.number("init-prefix-v4"));
    set(&mut read.prefix_v6, section.number("init-prefix-v6"));
    read
}

/// What a key says, if it stands in the file.
fn set<T>(field: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *field = said;
    }
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
