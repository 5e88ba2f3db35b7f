//! A connection, as it stands in swanctl.conf.

use core::fmt::Write as _;
use core::net::IpAddr;
use std::iter;
use std::path::PathBuf;

use super::{CHILD, PPK, PSK};
use crate::certificates::{Authority, Issued};
use crate::error::{Context as _, Result};
use crate::topology::{Family, Topology};

/// One connection with one child, in swanctl's words.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Our address.
    pub local: IpAddr,
    /// The peer's; `None`: any.
    pub remote: Option<IpAddr>,
    /// Our identity.
    pub local_id: String,
    /// The peer's identity.
    pub remote_id: String,
    /// How we authenticate: a key of `local`, and its value.
    pub local_auth: String,
    /// How the peer must: keys of `remote`.
    pub remote_auth: String,
    /// Our private key, if we sign.
    pub private_key: Option<PathBuf>,
    /// Certificates of authorities below the root, for our chain and the peer's.
    pub intermediates: Vec<PathBuf>,
    /// Our traffic selectors, comma-separated.
    pub local_ts: String,
    /// The peer's traffic selectors, comma-separated.
    pub remote_ts: String,
    /// `tunnel` or `transport`.
    pub mode: &'static str,
    /// IKE proposals.
    pub proposals: &'static str,
    /// ESP proposals.
    pub esp_proposals: &'static str,
    /// `none`, `trap` or `start`.
    pub start_action: &'static str,
    /// Octets of an IP packet above which IKE messages are fragmented.
    pub fragment_size: u16,
    /// The post-quantum pre-shared key: its name, and whether it is required.
    pub ppk: Option<(&'static str, bool)>,
    /// Whether to ask the peer for an address of each family.
    pub virtual_address: bool,
    /// Whether MOBIKE is spoken.
    pub mobike: bool,
    /// More keys of the connection.
    pub keys: String,
    /// The addresses that the peer may ask for, each pool a prefix.
    pub pools: Vec<&'static str>,
    /// The name servers that go with the first pool.
    pub name_servers: &'static str,
    /// After how many seconds without a message it asks whether the peer lives, and begins anew
    /// when there is no answer; `None`: never.
    pub liveness: Option<u32>,
    /// After how many seconds it replaces a Child SA and the IKE SA; `None`: long after any test.
    pub rekey_time: Option<(u32, u32)>,
    /// More secrets, beside the key of [`PSK`].
    pub secrets: String,
    /// More settings of the daemon.
    pub settings: &'static str,
    /// More about how much it logs.
    pub log: &'static str,
}

impl Connection {
    /// The client's side of a tunnel between the sites.
    #[must_use]
    pub fn of_client(topology: &Topology, family: Family, inner: Family) -> Self {
        Self {
            local: topology.client.outer(family),
            remote: Some(topology.server.outer(family)),
            local_id: "client.test".to_owned(),
            remote_id: "server.test".to_owned(),
            local_auth: "auth = psk".to_owned(),
            remote_auth: "auth = psk".to_owned(),
            private_key: None,
            intermediates: Vec::new(),
            local_ts: topology.client.prefix(inner),
            remote_ts: topology.server.prefix(inner),
            mode: "tunnel",
            proposals: "aes128gcm16-prfsha256-x25519",
            esp_proposals: "aes128gcm16",
            start_action: "none",
            fragment_size: 1280,
            ppk: None,
            virtual_address: false,
            name_servers: "",
            mobike: false,
            keys: String::new(),
            pools: Vec::new(),
            liveness: None,
            rekey_time: None,
            secrets: String::new(),
            settings: "",
            log: "",
        }
    }

    /// The server's side of it; it answers to any address.
    #[must_use]
    pub fn of_server(topology: &Topology, family: Family, inner: Family) -> Self {
        let client = Self::of_client(topology, family, inner);
        Self {
            local: topology.server.outer(family),
            remote: None,
            local_id: client.remote_id,
            remote_id: client.local_id,
            local_ts: client.remote_ts,
            remote_ts: client.local_ts,
            ..client
        }
    }

    /// With a certificate of ours and the root that the peer's must lead to; `methods` are values
    /// of `auth`, ours and the peer's: `pubkey` or `eap-tls`.
    #[must_use]
    pub fn certified(
        self,
        authority: &Authority,
        ours: &Issued,
        methods: [&'static str; 2],
    ) -> Self {
        let [local, remote] = methods;
        let eap_id = if remote == "eap-tls" { "\n      eap_id = %any" } else { "" };
        Self {
            local_auth: format!("auth = {local}\n      certs = {}", ours.certificate.display()),
            remote_auth: format!(
                "auth = {remote}\n      cacerts = {}{eap_id}",
                authority.certificate().display()
            ),
            private_key: Some(ours.key.clone()),
            intermediates: authority.intermediates(),
            ..self
        }
    }

    pub(super) fn render(&self) -> Result<String> {
        let mut text = String::new();
        let remote = self.remote.map_or_else(|| "%any".to_owned(), |a| a.to_string());
        let Self { local, local_id, remote_id, local_ts, remote_ts, mode, .. } = self;
        let Self { proposals, esp_proposals, start_action, local_auth, remote_auth, .. } = self;
        let (ppk, ppk_secret) = self.ppk.map_or_else(Default::default, |(id, required)| {
            let required = if required { "yes" } else { "no" };
            (
                format!("    ppk_id = {id}\n    ppk_required = {required}\n"),
                format!("  ppk-{CHILD} {{\n    id = {id}\n    secret = \"{PPK}\"\n  }}\n"),
            )
        });
        let vips = if self.virtual_address { "vips = 0.0.0.0, ::" } else { "" };
        let (secrets, keys) = (&self.secrets, &self.keys);
        let names: Vec<_> = (0..self.pools.len()).map(|n| format!("pool-{n}")).collect();
        let name_servers = match self.name_servers {
            "" => String::new(),
            addresses => format!("    dns = {addresses}\n"),
        };
        let told = iter::once(name_servers.as_str()).chain(iter::repeat(""));
        let pools = names.iter().zip(&self.pools).zip(told);
        let pools: Vec<_> = pools
            .map(|((name, net), dns)| format!("  {name} {{\n    addrs = {net}\n{dns}  }}\n"))
            .collect();
        let pools = pools.concat();
        let use_pools =
            if names.is_empty() { String::new() } else { format!("pools = {}", names.join(", ")) };
        let (delay, action) = match self.liveness {
            // It begins anew for as long as nobody answers: a peer that starts may take longer than
            // its patience for one attempt.
            Some(seconds) => {
                (format!("keyingtries = 0\n    dpd_delay = {seconds}s"), "dpd_action = restart")
            }
            None => (String::new(), ""),
        };
        // Its own margin, a tenth, would be no second at all.
        let (ike_time, child_time) = self.rekey_time.map_or_else(Default::default, |times| {
            let (child, ike) = times;
            let life = child.saturating_add(30);
            (
                format!("rekey_time = {ike}s\n    over_time = 30s\n    rand_time = 1s"),
                format!(
                    "rekey_time = {child}s\n        life_time = {life}s\n        rand_time = 1s"
                ),
            )
        });
        // One that moves has no address that it stays at.
        let (mobike, local) =
            if self.mobike { ("yes", "%any".to_owned()) } else { ("no", local.to_string()) };
        write!(
            text,
            "connections {{
  {CHILD} {{
    version = 2
    mobike = {mobike}
    local_addrs = {local}
    remote_addrs = {remote}
    proposals = {proposals}
{ppk}    {vips}
    {keys}
    {use_pools}
    {delay}
    {ike_time}
    local {{
      {local_auth}
      id = {local_id}
    }}
    remote {{
      {remote_auth}
      id = {remote_id}
    }}
    children {{
      {CHILD} {{
        mode = {mode}
        local_ts = {local_ts}
        remote_ts = {remote_ts}
        esp_proposals = {esp_proposals}
        start_action = {start_action}
        {action}
        {child_time}
      }}
    }}
  }}
}}
pools {{
{pools}}}
secrets {{
  ike-{CHILD} {{
    secret = \"{PSK}\"
  }}
{ppk_secret}  {secrets}
}}
"
        )
        .context("swanctl.conf")?;
        Ok(text)
    }
}
