//! Port ranges as XFRM can express them: value and mask.

use gateway_ike::config::PortRange;

/// A block of ports whose size is a power of two and that begins at a multiple of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortBlock {
    /// The bits that ports of the block have in common.
    pub value: u16,
    /// Which bits those are: all for one port, none for every port.
    pub mask: u16,
}

impl PortBlock {
    /// Every port.
    pub const ALL: Self = Self { value: 0, mask: 0 };
}

/// The fewest blocks that cover the range exactly: at most 30.
pub(super) fn port_blocks(range: &PortRange) -> Vec<PortBlock> {
    let (mut next, end) = (u32::from(*range.start()), u32::from(*range.end()));
    let mut blocks = Vec::new();
    while next <= end {
        // The largest block that begins here and does not reach beyond the end.
        let aligned = next.trailing_zeros().min(16);
        let fitting = end.saturating_sub(next).saturating_add(1).ilog2();
        let size = 1_u32.checked_shl(aligned.min(fitting)).unwrap_or(1);
        let (Ok(value), Ok(last)) = (u16::try_from(next), u16::try_from(size.saturating_sub(1)))
        else {
            break;
        };
        blocks.push(PortBlock { value, mask: !last });
        next = next.saturating_add(size);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(value: u16, mask: u16) -> PortBlock {
        PortBlock { value, mask }
    }

    #[test]
    fn every_port_is_one_block_without_a_mask() {
        assert_eq!(port_blocks(&(0..=u16::MAX)), [PortBlock::ALL]);
    }

    #[test]
    fn one_port_is_one_block_with_a_full_mask() {
        assert_eq!(port_blocks(&(443..=443)), [block(443, 0xffff)]);
        assert_eq!(port_blocks(&(0..=0)), [block(0, 0xffff)]);
        assert_eq!(port_blocks(&(u16::MAX..=u16::MAX)), [block(u16::MAX, 0xffff)]);
    }

    #[test]
    fn a_range_is_split_at_powers_of_two() {
        assert_eq!(
            port_blocks(&(1000..=1024)),
            [block(1000, 0xfff8), block(1008, 0xfff0), block(1024, 0xffff)]
        );
        assert_eq!(port_blocks(&(1024..=65535)).len(), 6);
        assert_eq!(port_blocks(&(1..=65534)).len(), 30);
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "that is the test")]
    fn a_reversed_range_has_no_blocks() {
        assert_eq!(port_blocks(&(5..=4)), []);
    }

    proptest! {
        #[test]
        fn blocks_cover_the_range_and_nothing_else(a: u16, b: u16, port: u16) {
            let range = a.min(b)..=a.max(b);
            let hits = port_blocks(&range).iter().filter(|x| port & x.mask == x.value).count();
            prop_assert_eq!(hits, usize::from(range.contains(&port)));
        }
    }
}
