//! The Internet checksum (RFC 1071), whole or changed along with a word of what it covers
//! (RFC 1624).

use aya_ebpf::helpers::bpf_csum_diff;

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

/// The sum of what lies in a frame, an even number of words, added to another. It is folded only so
/// far that more can be added.
#[inline(always)]
#[must_use]
pub fn of_frame<T: Copy>(value: &mut T, seed: u32) -> u32 {
    const { assert!(size_of::<T>().is_multiple_of(4)) };
    let words = core::ptr::from_mut(value).cast();
    let (none, size) = (core::ptr::null_mut(), size_of::<T>() as u32);
    // SAFETY: it reads what there is of the value, and nothing else.
    let sum = unsafe { bpf_csum_diff(none, 0, words, size, seed) }.cast_unsigned() as u32;
    (sum & 0xffff).wrapping_add(sum >> 16)
}

/// The checksum of what has this sum. Sum and checksum have the octets in the same order, whichever
/// it is (RFC 1071 2 B).
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> [u8; 2] {
    let once = (sum & 0xffff).wrapping_add(sum >> 16);
    let twice = (once & 0xffff).wrapping_add(once >> 16);
    (!(twice as u16)).to_ne_bytes()
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
    fn the_sum_of_a_header_with_its_checksum_folds_to_nothing() {
        let mut header =
            [0x4500_u16, 0x73, 0, 0x4000, 0x4011, 0, 0xc0a8, 1, 0xc0a8, 0xc7].map(u16::to_be);
        let sum = |header: &[u16]| header.iter().map(|word| u32::from(*word)).sum();
        let checksum = fold(sum(&header));
        assert_eq!(checksum, [0xb8, 0x61]);
        header[5] = u16::from_ne_bytes(checksum);
        assert_eq!(fold(sum(&header)), [0, 0]);
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
