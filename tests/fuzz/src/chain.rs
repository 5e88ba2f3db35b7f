//! Chains of payloads as octets, to be changed payload by payload whatever is in them.

use crate::GENERIC_LEN;
use crate::octets::Octets;

/// Payloads that a chain has at most after it was changed.
const MOST: usize = 64;

/// A payload: its type, its flags, its body.
pub type Raw = (u8, u8, Vec<u8>);

/// The payloads of a chain that begins with this type, as far as its lengths hold.
pub fn split(first: u8, mut octets: &[u8]) -> Vec<Raw> {
    let (mut chain, mut kind) = (Vec::new(), first);
    while kind != 0
        && let Some(([next, flags, high, low], _)) = octets.split_first_chunk()
        && let length = usize::from(u16::from_be_bytes([*high, *low]))
        && let Some(body) = octets.get(GENERIC_LEN..length)
    {
        chain.push((kind, *flags, body.to_vec()));
        (kind, octets) = (*next, &octets[length..]);
    }
    chain
}

/// The type of the first payload, and the octets of all.
pub fn join(chain: &[Raw]) -> (u8, Vec<u8>) {
    let kinds = chain.iter().skip(1).map(|(kind, ..)| *kind).chain([0]);
    let written = chain.iter().zip(kinds).flat_map(|((_, flags, body), next)| {
        let length = u16::try_from(GENERIC_LEN + body.len()).unwrap_or(u16::MAX);
        [&[next, *flags], length.to_be_bytes().as_slice(), body].concat()
    });
    (chain.first().map_or(0, |(kind, ..)| *kind), written.collect())
}

/// Changes a chain as the input says; `other` gives another one, whose payloads may be taken.
pub fn change(chain: &mut Vec<Raw>, octets: &mut Octets<'_>, other: impl Fn(u8) -> Vec<Raw>) {
    let how = octets.one();
    for _ in 0..=how >> 6 {
        let nth = usize::from(octets.one());
        let place = nth.checked_rem(chain.len()).unwrap_or(0);
        if chain.len() >= MOST {
            return;
        }
        match (how & 7, chain.get_mut(place)) {
            (0, Some(_)) => drop(chain.remove(place)),
            (1, Some(payload)) => {
                let again = payload.clone();
                chain.insert(usize::from(octets.one()) % (chain.len() + 1), again);
            }
            (2, Some(_)) => {
                let with = usize::from(octets.one()) % chain.len();
                chain.swap(place, with);
            }
            (3, Some((_, _, body))) => {
                let (at, with) = (octets.two(), octets.one());
                if let Some(at) = at.checked_rem(body.len()) {
                    body[at] ^= with;
                }
            }
            (4, Some((_, _, body))) => splice(body, octets),
            (5, Some((kind, flags, _))) => (*kind, *flags) = (octets.one(), octets.one()),
            (6, _) => {
                let (kind, flags, count) = (octets.one(), octets.one(), octets.one());
                chain.insert(place, (kind, flags, octets.take(count.into())));
            }
            (_, _) => {
                let from = other(octets.one());
                let which = usize::from(octets.one());
                if let Some(which) = which.checked_rem(from.len()) {
                    chain.insert(place, from[which].clone());
                }
            }
        }
    }
}

/// Takes octets out of some others, and puts octets of the input in their place.
pub fn splice(target: &mut Vec<u8>, octets: &mut Octets<'_>) {
    let (at, remove, insert) = (octets.two(), octets.one(), octets.one());
    let inserted = octets.take(insert.into());
    let start = at.min(target.len());
    let end = start.saturating_add(remove.into()).min(target.len());
    target.splice(start..end, inserted);
}
