//! Finds out who has a UDP port, for the error message: `/proc/net/udp` names the socket's inode,
//! `/proc/PID/fd` who has it open.

use std::fs;
use std::path::Path;

/// The name and PID of a process that has the UDP port open, as `charon (pid 71)`, if it can be
/// found: it may live in another PID namespace, or not be ours to look into.
pub(super) fn of_udp_port(port: u16) -> Option<String> {
    ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| inodes(&table, port))
        .find_map(|inode| process_with(&format!("socket:[{inode}]")))
}

/// The inodes of the sockets bound to a port, from a table in the format of `/proc/net/udp`.
fn inodes(table: &str, port: u16) -> Vec<u64> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (_, local) = fields.nth(1)?.rsplit_once(':')?;
            let inode = fields.nth(7)?.parse().ok()?;
            (u16::from_str_radix(local, 16).ok()? == port).then_some(inode)
        })
        .collect()
}

fn process_with(link: &str) -> Option<String> {
    let processes = fs::read_dir("/proc").ok()?;
    processes.filter_map(Result::ok).find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut open = fs::read_dir(process.path().join("fd")).ok()?.filter_map(Result::ok);
        open.any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == Path::new(link))).then(
            || {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                format!("{} (pid {pid})", name.trim().escape_default())
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  312: 00000000:01F4 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 20123 2 0000000000000000 0
  405: 0100007F:1194 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 20124 2 0000000000000000 0
garbage
";

    #[test]
    fn the_inode_of_a_port_is_found_and_garbage_is_skipped() {
        assert_eq!(inodes(TABLE, 500), [20123]);
        assert_eq!(inodes(TABLE, 4500), [20124]);
        assert!(inodes(TABLE, 501).is_empty());
    }

    #[test]
    fn a_port_of_this_process_is_traced_to_it() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let holder = of_udp_port(socket.local_addr().unwrap().port()).unwrap();
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
    }
}
