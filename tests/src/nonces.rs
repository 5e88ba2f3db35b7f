//! Nonces as strongSwan's log shows them when it tells what messages consist of (`enc = 3`).

/// The nonces that were sent, and those that were received, each in their order.
#[must_use]
pub fn of_log(log: &str) -> [Vec<Vec<u8>>; 2] {
    let mut all = [Vec::new(), Vec::new()];
    let mut under_way: Option<(usize, Vec<u8>)> = None;
    let mut is_data = false;
    for line in log.lines().filter_map(|line| line.split_once("[ENC]")).map(|(_, said)| said) {
        if line.contains("generating payload of type NONCE") {
            (under_way, is_data) = (Some((0, Vec::new())), false);
        } else if line.contains("parsing NONCE payload, ") {
            (under_way, is_data) = (Some((1, Vec::new())), false);
        } else if line.contains("NONCE payload finished") {
            if let Some((which, nonce)) = under_way.take()
                && let Some(all) = all.get_mut(which)
            {
                all.push(nonce);
            }
        } else if line.contains("CHUNK_DATA") {
            is_data = true;
        } else if is_data && let Some((_, nonce)) = &mut under_way {
            nonce.extend(octets(line));
        }
    }
    all
}

/// Characters of sixteen octets, with a space after each.
const FIELD: usize = 16 * 3;

/// Those of one line: the first one's number, a colon, a field for sixteen of them in hexadecimal,
/// and what they are as text.
fn octets(line: &str) -> Vec<u8> {
    let Some((number, dump)) = line.split_once(": ") else { return Vec::new() };
    if number.trim().parse::<usize>().is_err() {
        return Vec::new();
    }
    let field = dump.get(..FIELD).unwrap_or(dump);
    field.split_whitespace().map_while(|octet| u8::from_str_radix(octet, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_are_found_in_both_directions() {
        let log = "\
09:25:45 07[ENC]   generating rule 10 CHUNK_DATA
09:25:45 07[ENC] generating payload of type NONCE
09:25:45 07[ENC]   generating rule 9 PAYLOAD_LENGTH
09:25:45 07[ENC]    => 2 bytes @ 0x7faa642588d4
09:25:45 07[ENC]    0: 00 24                                            .$
09:25:45 07[ENC]   generating rule 10 CHUNK_DATA
09:25:45 07[ENC]    => 18 bytes @ 0x7faa40004a00
09:25:45 07[ENC]    0: 6D 72 1A 02 DD B2 BF B9 23 46 F2 01 08 D8 2F FB  mr......#F..../.
09:25:45 07[ENC]   16: AA FD                                            aa
09:25:45 07[ENC] generating NONCE payload finished
09:25:45 07[ENC]    0: 22 00 00 24 6D 72 1A 02 DD B2 BF B9 23 46 F2 01  \"..$mr......#F..
09:25:49 16[ENC] parsing NONCE payload, 124 bytes left
09:25:49 16[ENC]    0: 22 00 00 24 9F C4 AE 0F BC 8B E4 11 C7 73 E2 8D  \"..$.........s..
09:25:49 16[ENC]   parsing rule 10 CHUNK_DATA
09:25:49 16[ENC]    => 3 bytes @ 0x7faa50032630
09:25:49 16[ENC]    0: 9F C4 AE                                         ...
09:25:49 16[ENC] parsing NONCE payload finished
09:25:49 16[IKE] something else";
        let sent = b"\x6d\x72\x1a\x02\xdd\xb2\xbf\xb9\x23\x46\xf2\x01\x08\xd8\x2f\xfb\xaa\xfd";
        assert_eq!(of_log(log), [vec![sent.to_vec()], vec![vec![0x9f, 0xc4, 0xae]]]);
    }
}
