//! The Internet checksum, changed along with a word of what it covers (RFC 1624).

/// The checksum of a header in which the word `old` becomes `new`: HC' = ~(~HC + ~m + m').
#[inline(always)]
#[must_use]
pub const fn replace(checksum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let mut sum = (!u16::from_be_bytes(checksum)) as u32;
    // Three numbers of 16 bits fit into 18.
    sum = sum.wrapping_add((!u16::from_be_bytes(old)) as u32);
    sum = sum.wrapping_add(u16::from_be_bytes(new) as u32);
    sum = (sum & 0xffff).wrapping_add(sum >> 16);
    sum = (sum & 0xffff).wrapping_add(sum >> 16);
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, over the whole header.
    fn whole(header: &[u8]) -> [u8; 2] {
        let mut sum: u32 =
            header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff).wrapping_add(sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }

    #[test]
    fn a_replaced_word_gives_the_checksum_of_the_new_header() {
        let mut header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
            0xc7,
        ];
        for length in (28..=u16::MAX).step_by(7) {
            header[2..4].copy_from_slice(&length.to_be_bytes());
            header[9] = 17;
            header[10..12].fill(0);
            let before = whole(&header);
            let mut changed = replace(before, length.to_be_bytes(), (length - 8).to_be_bytes());
            changed = replace(changed, [0x40, 17], [0x40, 50]);
            header[2..4].copy_from_slice(&(length - 8).to_be_bytes());
            header[9] = 50;
            assert_eq!(changed, whole(&header), "length {length}");
        }
    }
}
