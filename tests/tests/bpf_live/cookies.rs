//! Who demands cookies where XDP can answer, and where its answers would be lost.

use gateway_common::CookieSecret;
use gateway_ike::config::InitLimits;
use gateway_ike::io::SharedCookies;
use gateway_tests::daemon::wait_for;

use super::*;

/// An IKE_SA_INIT request, as far as it is looked at.
fn request() -> Vec<u8> {
    let mut octets = vec![7; 200];
    octets[8..16].fill(0);
    octets[16..24].copy_from_slice(&[33, 0x20, 34, 0x08, 0, 0, 0, 0]);
    octets[24..28].copy_from_slice(&200_u32.to_be_bytes());
    octets
}

#[test]
fn a_request_is_answered_by_the_program_only_where_that_goes_out() {
    on_a_wire(|wire, bpffs| {
        let secret = CookieSecret { key: [1, 2], version: 1, zero: 0 };
        let cookies = SharedCookies { secrets: [secret; 2], demand: true };
        // Beyond this MTU of the other end veth's driver takes no program.
        for (mtu, mode) in [(1500, XdpMode::Driver), (9000, XdpMode::Generic)] {
            // Until a program is gone that was detached the driver allows no larger MTU.
            let change = format!("link set eth0 mtu {mtu}");
            wait_for("the MTU", SOON, || Ok(wire.peer.ip(&change).ok())).unwrap();
            let mut data_path = loaded(wire, bpffs);
            bpf::serve_at(&mut data_path, wire.index("eth0"), &[US, US_V6]);
            data_path.protect_ike(&InitLimits::default(), &cookies).unwrap();
            assert_eq!(attach(wire, &mut data_path).xdp, mode);
            for (us, peer) in [(US, PEER), (US_V6, PEER_V6)] {
                let ours = udp_socket(&wire.us, us, 500);
                let theirs = udp_socket(&wire.peer, peer, 500);
                theirs.send_to(&request(), ours.local_addr().unwrap()).unwrap();
                let mut buffer = [0; 512];
                if mode == XdpMode::Driver {
                    let (length, _) = ours.recv_from(&mut buffer).unwrap();
                    assert_eq!(buffer[..length], request());
                } else {
                    let (length, from) = theirs.recv_from(&mut buffer).unwrap();
                    assert_eq!(from, ours.local_addr().unwrap());
                    assert_eq!(buffer[..8], [7; 8]);
                    assert_eq!((length, buffer[16], buffer[19]), (28 + 20, 41, 0x20));
                }
            }
            let answered = if mode == XdpMode::Driver { 0 } else { 2 };
            assert_eq!(count(&data_path, Reason::IkeCookieAnswered), answered);
            drop(data_path);
            wire.us.enter(|| data_path::remove(&bpf::config(bpffs).pin_dir).unwrap()).unwrap();
        }
    });
}
