//! The name servers that peers have told us, in a file in the format of resolv.conf(5).
//!
//! They are in it as long as the addresses are ours that the same peer has assigned to us: while a
//! Child SA with it is installed. Each change replaces the file, so that whoever reads it sees the
//! old list or the new one. It is small and meant for a tmpfs, and is written where the loop turns.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use gateway_ike::config::PeerName;
use gateway_ike::io::ChildId;

use super::whole_file::{self, Lasting};
use crate::clock;
use crate::complaints::Complaints;

/// Anybody may read it: whose resolver it is for is not known here.
const MODE: u32 = 0o644;

/// Who has told what, and what of that the file has.
#[derive(Debug)]
pub(super) struct NameServers {
    /// `None`: the operator wants no file.
    path: Option<PathBuf>,
    of_child: BTreeMap<ChildId, (PeerName, Vec<IpAddr>)>,
    /// What the file has; `None` before the first time, and when it could not be written.
    written: Option<String>,
    /// The file may not have what it should.
    stale: bool,
    failures: u64,
    /// Peers make and delete Child SAs as they like.
    complaints: Complaints,
}

impl NameServers {
    /// Nobody has told us any. Nothing is written yet.
    pub(super) const fn new(path: Option<PathBuf>, complaints: Complaints) -> Self {
        let of_child = BTreeMap::new();
        Self { path, of_child, written: None, stale: false, failures: 0, complaints }
    }

    /// Writes the file for the first time.
    pub(super) fn begin(&mut self) {
        self.stale = true;
        self.write_if_changed();
    }

    /// The peer of a Child SA that is installed has told us these.
    pub(super) fn installed(&mut self, child: ChildId, peer: PeerName, servers: Vec<IpAddr>) {
        if self.path.is_some() && !servers.is_empty() {
            self.of_child.insert(child, (peer, servers));
            self.stale = true;
        }
    }

    /// A Child SA is gone.
    pub(super) fn removed(&mut self, child: ChildId) {
        self.stale |= self.of_child.remove(&child).is_some();
    }

    /// What made writing fail may have been mended.
    pub(super) fn try_again(&mut self) {
        self.stale |= self.failures > 0 && self.written.is_none();
    }

    /// Everything ends.
    pub(super) fn clear(&mut self) {
        self.of_child.clear();
        self.stale = true;
        self.write_if_changed();
    }

    /// Replaces the file if it has something else than what holds now. After a failure it is
    /// tried again at the next change, and with [`Self::try_again`].
    pub(super) fn write_if_changed(&mut self) {
        let Some(path) = self.path.as_deref().filter(|_| self.stale) else { return };
        self.stale = false;
        let text = render(&self.of_child);
        if self.written.as_ref() == Some(&text) {
            return;
        }
        let path_shown = path.display();
        let may_say = self.complaints.take(clock::now());
        match whole_file::put(path, text.as_bytes(), MODE, Lasting::Process) {
            Ok(()) => {
                if may_say {
                    let servers = text.lines().filter(|line| line.starts_with("nameserver"));
                    let servers = servers.count();
                    tracing::info!(path = %path_shown, servers, "Wrote the name servers that peers tell");
                }
                self.written = Some(text);
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.written = None;
                if may_say {
                    tracing::warn!(
                        path = %path_shown, %error,
                        "Cannot write the name servers that peers tell: `resolv-conf` must be in a directory that root may write to"
                    );
                }
            }
        }
    }

    /// How often the file could not be written.
    pub(super) const fn failures(&self) -> u64 {
        self.failures
    }
}

/// The file: peers by name, each server once, those of one peer in its order.
fn render(of_child: &BTreeMap<ChildId, (PeerName, Vec<IpAddr>)>) -> String {
    let mut by_peer: BTreeMap<&PeerName, Vec<IpAddr>> = BTreeMap::new();
    for (peer, servers) in of_child.values() {
        let all = by_peer.entry(peer).or_default();
        let new: Vec<_> = servers.iter().filter(|server| !all.contains(server)).copied().collect();
        all.extend(new);
    }
    let mut text =
        "# Written by gateway(8) with every change: the name servers that peers tell.\n".to_owned();
    let mut lines = String::new();
    let mut seen = BTreeSet::new();
    for (peer, servers) in by_peer {
        let words: Vec<_> = servers.iter().map(ToString::to_string).collect();
        // Writing into a string cannot fail. Names are letters, digits and three signs.
        let _infallible = writeln!(text, "# {peer}: {}", words.join(" "));
        for server in servers.into_iter().filter(|server| seen.insert(*server)) {
            let _infallible = writeln!(lines, "nameserver {server}");
        }
    }
    text.push_str(&lines);
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;
    use crate::testing::lines_of;

    const HEAD: &str =
        "# Written by gateway(8) with every change: the name servers that peers tell.\n";

    fn install(names: &mut NameServers, child: u64, peer: &str, servers: &[&str]) {
        let servers = servers.iter().map(|s| s.parse().unwrap()).collect();
        names.installed(ChildId(child), peer.into(), servers);
        names.write_if_changed();
    }

    fn remove(names: &mut NameServers, child: u64) {
        names.removed(ChildId(child));
        names.write_if_changed();
    }

    fn begun(path: &Path) -> NameServers {
        let mut names = NameServers::new(Some(path.to_owned()), Complaints::new(5));
        names.begin();
        names
    }

    #[test]
    fn the_file_has_each_server_once_in_a_stable_order_and_is_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let read = || fs::read_to_string(&path).unwrap();
        // What a gateway that was killed has left goes at the start.
        fs::write(&path, "nameserver 203.0.113.1\n").unwrap();
        let mut names = begun(&path);
        assert_eq!(read(), HEAD);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);

        install(&mut names, 1, "vpn", &["10.1.0.53", "fd00:1::53"]);
        install(&mut names, 2, "branch", &["10.2.0.53", "10.1.0.53"]);
        install(&mut names, 3, "silent", &[]);
        let both = "# branch: 10.2.0.53 10.1.0.53\n# vpn: 10.1.0.53 fd00:1::53\n\
                    nameserver 10.2.0.53\nnameserver 10.1.0.53\nnameserver fd00:1::53\n";
        assert_eq!(read(), format!("{HEAD}{both}"));
        remove(&mut names, 2);
        remove(&mut names, 3);
        let one = format!(
            "{HEAD}# vpn: 10.1.0.53 fd00:1::53\n\
                           nameserver 10.1.0.53\nnameserver fd00:1::53\n"
        );
        assert_eq!(read(), one);

        // A successor: what holds stays, and is not written again.
        fs::remove_file(&path).unwrap();
        install(&mut names, 4, "vpn", &["10.1.0.53", "fd00:1::53"]);
        remove(&mut names, 1);
        assert!(!path.exists());
        remove(&mut names, 4);
        assert_eq!(read(), HEAD);
        install(&mut names, 5, "vpn", &["10.1.0.53"]);
        names.clear();
        assert_eq!((read().as_str(), names.failures()), (HEAD, 0));
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing is left beside it: {left:?}");
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let [path, other] = ["resolv.conf", "other"].map(|name| directory.path().join(name));
        fs::write(&other, "precious").unwrap();
        for link in [path.clone(), directory.path().join("resolv.conf.new")] {
            std::os::unix::fs::symlink(&other, link).unwrap();
        }
        begun(&path);
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn a_directory_that_is_not_there_is_counted_and_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("later").join("resolv.conf");
        let mut names = begun(&path);
        install(&mut names, 1, "vpn", &["10.1.0.53"]);
        assert_eq!(names.failures(), 2);
        names.write_if_changed();
        assert_eq!(names.failures(), 2, "not with every turn of the loop");
        fs::create_dir(directory.path().join("later")).unwrap();
        names.try_again();
        names.write_if_changed();
        assert!(fs::read_to_string(&path).unwrap().ends_with("\nnameserver 10.1.0.53\n"));
        assert_eq!(names.failures(), 2);
    }

    #[test]
    fn a_peer_that_comes_and_goes_has_the_file_changed_and_few_lines_written() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("later").join("resolv.conf");
        for (path, failures) in [(directory.path().join("resolv.conf"), 0), (missing, 2001)] {
            let (names, lines) = lines_of(|| {
                let mut names = begun(&path);
                for _ in 0..1000 {
                    install(&mut names, 1, "vpn", &["10.1.0.53"]);
                    remove(&mut names, 1);
                }
                names
            });
            assert_eq!((names.failures(), lines > 40), (failures, true));
            let suppressed = usize::try_from(names.complaints.suppressed()).unwrap();
            assert_eq!(lines + suppressed, 2001, "what is not said is counted");
            // As many more as are earned while it runs.
            assert!(lines < 300, "{lines}");
        }
    }

    #[test]
    fn without_a_path_nothing_is_kept() {
        let mut names = NameServers::new(None, Complaints::new(5));
        names.begin();
        install(&mut names, 1, "vpn", &["10.1.0.53"]);
        assert!(names.of_child.is_empty());
        names.clear();
        assert_eq!(names.failures(), 0);
    }
}
