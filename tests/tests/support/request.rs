//! The first message of a real initiator.

#![expect(clippy::expect_used, clippy::panic, reason = "this is test code")]
#![allow(dead_code, reason = "each test target uses a part of it")]

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Instant;

use gateway_ike::Endpoint;
use gateway_ike::config::EndpointConfig;
use gateway_ike::crypto::key_exchange::SystemKeyExchange;
use gateway_ike::io::{Done, Input, KernelCommand, Output, Path};
use gateway_ike::random::SystemSource;

/// An initiator that has begun, and its request.
pub(crate) struct Initiator {
    endpoint: Endpoint,
    pub(crate) path: Path,
    pub(crate) request: Vec<u8>,
}

impl Initiator {
    /// Begins from one address to another.
    pub(crate) fn begin(from: &str, to: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let secret = directory.path().join("psk");
        fs::write(&secret, "correct horse battery staple").expect("a secret");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("its mode");
        let policy = format!(
            "[peer.other]\naddress = \"{to}\"\nlocal-id = \"a.test\"\nremote-id = \"b.test\"\n\
             psk-file = \"psk\"\n\n[rule.net]\naction = \"protect\"\npeer = \"other\"\n\
             local = [\"10.1.0.0/24\"]\nremote = [\"10.2.0.0/24\"]\nstart = \"always\"\n"
        );
        fs::write(directory.path().join("a.toml"), policy).expect("a policy file");
        let loaded = gateway::policy::load(directory.path()).unwrap_or_else(|e| panic!("{e:?}"));
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Box::new(SystemSource::default()),
            Box::new(SystemKeyExchange),
        );
        let from: IpAddr = from.parse().expect("an address");
        let nowhere = SocketAddr::new(from, 0);
        let path = Path { local: nowhere, remote: nowhere };
        let mut begun = Self { endpoint, path, request: Vec::new() };
        begun.hand_in(from, Input::Policies(Arc::new(loaded.policies)));
        assert!(!begun.request.is_empty(), "it has begun");
        begun
    }

    /// Hands an answer in; the request that follows is the one that there is from now on.
    pub(crate) fn answer(&mut self, octets: &[u8]) {
        let path = self.path;
        self.hand_in(path.local.ip(), Input::Datagram { path, octets });
    }

    fn hand_in(&mut self, from: IpAddr, input: Input<'_>) {
        self.endpoint.handle(Instant::now(), input);
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit { path, octets } => (self.path, self.request) = (path, octets),
                Output::Kernel(id, command) => {
                    let find = matches!(command, KernelCommand::FindLocalAddress { .. });
                    let done = if find { Done::LocalAddress(from) } else { Done::Ok };
                    self.endpoint.handle(Instant::now(), Input::CommandDone(id, Ok(done)));
                }
                Output::Keepalive { .. }
                | Output::Expect { .. }
                | Output::ExpectNoMore { .. }
                | Output::Cookies(_)
                | Output::Event(_) => {}
            }
        }
    }
}
