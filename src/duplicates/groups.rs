//! Groups of near-duplicates: stars, each of a representative and the photos near it.
//!
//! The photos are taken in one order, those with the most pixels first, and of these the lowest `photo_id`. A photo joins the
//! nearest of the representatives so far (of several, the first) if one is near; otherwise it becomes a
//! representative itself. So every photo of a group is near its representative: a chain of photos, each near the next, does
//! not end up in one group. Neither the order of rows nor the number of threads matters.

use std::cmp::Reverse;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use rayon::prelude::*;

use super::join::{Compared, Pair, each_pair};
use super::tables::GroupedPhoto;
use crate::error::Result;
use crate::photo::hashes::CropResistantHash;

/// What is known about a photo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashedPhoto {
    /// Its id.
    pub photo_id: u32,
    /// Pixels of the upright photo.
    pub pixels: u64,
    /// The last 128 bits of its content's SHA-256.
    pub content: u128,
    /// The place of its hash; `None` for a flat photo, which only copies of the same content are like.
    pub hash: Option<u32>,
}

/// The pairs that are kept at most, of 12 bytes each.
const PAIRS_KEPT: usize = 1 << 24;

/// Which photos are near each other, and how they are compared.
#[derive(Clone, Copy)]
struct Nearness {
    distance: u32,
    /// Pairs that are kept at most.
    kept: usize,
    /// What progress is called.
    task: &'static str,
}

/// Groups photos whose hashes lie in `hashes`, in order of `photo_id`. Photos with equal hashes are compared once.
///
/// # Errors
/// [`crate::Error::Stopped`].
pub fn group(
    photos: Vec<HashedPhoto>,
    hashes: &[CropResistantHash],
    distance: u32,
    task: &'static str,
) -> Result<Vec<GroupedPhoto>> {
    group_near(photos, hashes, Nearness { distance, kept: PAIRS_KEPT, task })
}

fn group_near(mut photos: Vec<HashedPhoto>, hashes: &[CropResistantHash], near: Nearness) -> Result<Vec<GroupedPhoto>> {
    photos.par_sort_unstable_by_key(|it| (Reverse(it.pixels), it.photo_id));
    let leads = Leads::new(&photos, hashes);
    let (compared, of) = leads.compared();
    let stars = stars(Compared { hashes, of: &of }, near)?;
    let mut star_of: Vec<(u32, u32)> = (0..photos.len() as u32).map(|it| (it, 0)).collect();
    for (&photo, (center, distance)) in compared.iter().zip(stars) {
        star_of[photo as usize] = (compared[center as usize], distance);
    }
    let mut groups: Vec<GroupedPhoto> = photos
        .par_iter()
        .enumerate()
        .map(|(place, photo)| {
            let (center, distance) = star_of[leads.equals[place] as usize];
            GroupedPhoto {
                photo_id: photo.photo_id,
                group_id: photos[center as usize].photo_id,
                distance,
                is_representative: center as usize == place,
                is_exact_copy: leads.copied[place] as usize != place,
            }
        })
        .collect();
    groups.par_sort_unstable_by_key(|it| it.photo_id);
    Ok(groups)
}

/// Which photos stand for which others, as places in order: those with an equal hash, or the same content.
struct Leads {
    /// For each photo, the first one with the same content.
    copied: Vec<u32>,
    /// The place of the hash of each content, by its first photo.
    hash_of: Vec<Option<u32>>,
    /// For each photo, the first one of equal hash; of a flat photo, the first one with the same content.
    equals: Vec<u32>,
}

impl Leads {
    fn new(photos: &[HashedPhoto], hashes: &[CropResistantHash]) -> Self {
        let copies_of = firsts(photos.len(), |place| photos[place as usize].content);
        // One row may lack the hash that another of the same content has: an older version made it, and it could not be made again.
        let mut hash_of = vec![None; photos.len()];
        for (photo, &copy_of) in photos.iter().zip(&copies_of) {
            let hash: &mut Option<u32> = &mut hash_of[copy_of as usize];
            *hash = hash.or(photo.hash);
        }
        let hash = |place: u32| hash_of[copies_of[place as usize] as usize];
        let mut lead_of = firsts(photos.len(), |place| hash(place).map(|it| hashes[it as usize]));
        for (lead, place) in lead_of.iter_mut().zip(0..) {
            if hash(place).is_none() {
                *lead = copies_of[place as usize];
            }
        }
        Self { copied: copies_of, hash_of, equals: lead_of }
    }

    /// The photos to be compared, one of each hash; and the places of their hashes.
    fn compared(&self) -> (Vec<u32>, Vec<u32>) {
        let own = self.equals.iter().zip(0..).filter(|&(&lead, place)| lead == place);
        let hash = |place: u32| self.hash_of[self.copied[place as usize] as usize];
        own.filter_map(|(_, place)| Some((place, hash(place)?))).unzip()
    }
}

/// For each of `count` places, the first one with an equal key.
fn firsts<K: Ord>(count: usize, key: impl Fn(u32) -> K + Sync) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    order.par_sort_unstable_by(|&a, &b| key(a).cmp(&key(b)).then(a.cmp(&b)));
    let mut firsts = vec![0; count];
    for equal in order.chunk_by(|&a, &b| key(a) == key(b)) {
        for &place in equal {
            firsts[place as usize] = equal[0];
        }
    }
    firsts
}

/// The star of each of the photos compared, in order: its representative, and the distance to it.
///
/// Among very many photos that are all near each other there are too many pairs to keep. If there are more than `kept`, photos
/// are compared again instead, but only those that are near any other.
fn stars(compared: Compared, near: Nearness) -> Result<Vec<(u32, u32)>> {
    let mut stars: Vec<(u32, u32)> = (0..compared.of.len() as u32).map(|it| (it, 0)).collect();
    let near_any = numbers(stars.len(), 0);
    let pairs = few_pairs(compared, near, |pair| {
        near_any[pair.later as usize].store(1, Ordering::Relaxed);
        near_any[pair.earlier as usize].store(1, Ordering::Relaxed);
    })?;
    if let Some(pairs) = pairs {
        for near in pairs.chunk_by(|a, b| a.later == b.later) {
            let centers = near.iter().filter(|it| stars[it.earlier as usize].0 == it.earlier);
            if let Some(nearest) = centers.min_by_key(|it| (it.distance, it.earlier)) {
                stars[nearest.later as usize] = (nearest.earlier, nearest.distance);
            }
        }
        return Ok(stars);
    }
    let is_near = |place: &u32| near_any[*place as usize].load(Ordering::Relaxed) > 0;
    let places: Vec<u32> = (0..stars.len() as u32).filter(is_near).collect();
    let of: Vec<u32> = places.iter().map(|&it| compared.of[it as usize]).collect();
    for (&place, (center, distance)) in places.iter().zip(stars_by_rounds(Compared { of: &of, ..compared }, near)?) {
        stars[place as usize] = (places[center as usize], distance);
    }
    Ok(stars)
}

/// As [`stars`], without keeping pairs.
fn stars_by_rounds(compared: Compared, near: Nearness) -> Result<Vec<(u32, u32)>> {
    let is_center = centers(compared, near)?;
    let unless_itself = |(&is_center, place): (&bool, u64)| if is_center { place } else { u64::MAX };
    let nearest: Vec<AtomicU64> = is_center.iter().zip(0..).map(unless_itself).map(AtomicU64::new).collect();
    each_pair(compared, near.distance, near.task, |pair| {
        if is_center[pair.earlier as usize] && !is_center[pair.later as usize] {
            let center = u64::from(pair.distance) << u32::BITS | u64::from(pair.earlier);
            nearest[pair.later as usize].fetch_min(center, Ordering::Relaxed);
        }
    })?;
    Ok(nearest.into_iter().map(AtomicU64::into_inner).map(|it| (it as u32, (it >> u32::BITS) as u32)).collect())
}

/// Which of the photos compared are representatives: those without an earlier representative near them.
///
/// A photo without an earlier one near it is a representative, and later photos near it are not. These are then left out, and
/// the rest is decided in the same way, in a few rounds of ever fewer photos.
fn centers(compared: Compared, near: Nearness) -> Result<Vec<bool>> {
    let mut is_center = vec![false; compared.of.len()];
    let mut open: Vec<u32> = (0..compared.of.len() as u32).collect();
    while !open.is_empty() {
        let of: Vec<u32> = open.iter().map(|&it| compared.of[it as usize]).collect();
        let rest = Compared { of: &of, ..compared };
        let earliest = numbers(of.len(), u32::MAX);
        let pairs = few_pairs(rest, near, |pair| {
            earliest[pair.later as usize].fetch_min(pair.earlier, Ordering::Relaxed);
        })?;
        let is_first = |place: u32| earliest[place as usize].load(Ordering::Relaxed) == u32::MAX;
        let is_covered = numbers(of.len(), 0);
        let cover = |pair: Pair| is_covered[pair.later as usize].store(1, Ordering::Relaxed);
        let is_covered = |place: u32| is_covered[place as usize].load(Ordering::Relaxed) > 0;
        match &pairs {
            // In order, so that it is known of the earlier one.
            Some(pairs) => {
                for pair in pairs {
                    if !is_covered(pair.earlier) {
                        cover(*pair);
                    }
                }
            }
            None => each_pair(rest, near.distance, near.task, |pair| {
                if is_first(pair.earlier) {
                    cover(pair);
                }
            })?,
        }
        let mut next = Vec::new();
        for (&photo, place) in open.iter().zip(0..) {
            if is_first(place) || (pairs.is_some() && !is_covered(place)) {
                is_center[photo as usize] = true;
            } else if !is_covered(place) {
                next.push(photo);
            }
        }
        open = next;
    }
    Ok(is_center)
}

/// The pairs that are near each other, in order, each once with its smallest distance; `None` if there are more than are to
/// be kept. All of them are told.
fn few_pairs(compared: Compared, near: Nearness, tell: impl Fn(Pair) + Sync) -> Result<Option<Vec<Pair>>> {
    let (kept, count) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    each_pair(compared, near.distance, near.task, |pair| {
        tell(pair);
        if count.load(Ordering::Relaxed) <= near.kept {
            count.fetch_add(1, Ordering::Relaxed);
            kept.lock().expect("no thread panics with it").push(pair);
        }
    })?;
    let mut pairs = kept.into_inner().expect("no thread panicked with it");
    if pairs.len() > near.kept {
        return Ok(None);
    }
    pairs.par_sort_unstable();
    pairs.dedup_by_key(|it| (it.later, it.earlier));
    Ok(Some(pairs))
}

/// Numbers that several threads change.
fn numbers(count: usize, value: u32) -> Vec<AtomicU32> {
    (0..count).map(|_| AtomicU32::new(value)).collect()
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::threads;

    /// A hash whose views have nothing in common, and that is `bits` bits from that of 0 bits.
    fn hash(seed: u64, bits: u32) -> CropResistantHash {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut hash: CropResistantHash = std::array::from_fn(|_| random.random());
        hash[0] ^= (1 << bits) - 1;
        hash
    }

    fn photo(photo_id: u32, pixels: u64, content: u128, hash: Option<u32>) -> HashedPhoto {
        HashedPhoto { photo_id, pixels, content, hash }
    }

    fn row((photo_id, group_id, distance, is_exact_copy): (u32, u32, u32, bool)) -> GroupedPhoto {
        GroupedPhoto { photo_id, group_id, distance, is_representative: photo_id == group_id, is_exact_copy }
    }

    #[test]
    fn groups_are_stars_around_the_largest_photos() -> Result<()> {
        // A chain of 0, 5, 10 and 14 bits; a copy of the second; another photo; two flat photos of one content, one of another.
        let hashes = [hash(1, 0), hash(1, 5), hash(1, 10), hash(1, 14), hash(2, 0)];
        let photos = vec![
            photo(10, 600, 1, Some(0)),
            photo(11, 900, 2, Some(1)),
            photo(12, 500, 3, Some(2)),
            photo(13, 400, 4, Some(3)),
            photo(14, 900, 2, Some(1)),
            photo(15, 100, 5, Some(4)),
            photo(16, 100, 6, None),
            photo(17, 100, 6, None),
            photo(18, 100, 7, None),
        ];
        let expected = [
            (10, 11, 5, false),
            (11, 11, 0, false),
            (12, 11, 5, false),
            // 4 bits from the one before it, but 9 from the representative.
            (13, 13, 0, false),
            (14, 11, 0, true),
            (15, 15, 0, false),
            (16, 16, 0, false),
            (17, 16, 0, true),
            (18, 18, 0, false),
        ];
        assert_eq!(group(photos.clone(), &hashes, 8, "test")?, expected.map(row));
        let alone = group(photos, &hashes, 0, "test")?;
        assert_eq!(alone.iter().filter(|it| it.is_representative).count(), 7, "only copies are grouped");
        assert_eq!(group(Vec::new(), &[], 8, "test")?, []);
        Ok(())
    }

    #[test]
    fn a_photo_joins_the_nearest_of_the_representatives_near_it() -> Result<()> {
        let hashes = [hash(1, 0), hash(1, 9), hash(1, 4), hash(1, 5), hash(1, 5)];
        let photos =
            [(0, 9), (1, 8), (2, 7), (3, 6), (4, 5)].map(|(id, pixels)| photo(id, pixels, id.into(), Some(id)));
        let groups = group(photos.to_vec(), &hashes, 8, "test")?;
        let of: Vec<_> = groups.iter().map(|it| (it.group_id, it.distance)).collect();
        assert_eq!(of, [(0, 0), (1, 0), (0, 4), (1, 4), (1, 4)]);
        Ok(())
    }

    #[test]
    fn neither_the_order_of_rows_nor_the_threads_matter() -> Result<()> {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let hashes: Vec<_> = (0..900).map(|it| hash(it / 9, random.random_range(0..20))).collect();
        let mut photos: Vec<_> =
            (0..900).map(|id| photo(id, random.random_range(1..5), u128::from(id / 2), Some(id / 2 * 2))).collect();
        let groups = group(photos.clone(), &hashes, 8, "test")?;
        assert!(groups.iter().filter(|it| !it.is_representative).count() > 450);
        for threads in [1, 3] {
            for place in (1..photos.len()).rev() {
                photos.swap(place, random.random_range(0..=place));
            }
            let again = threads::with(threads, || group(photos.clone(), &hashes, 8, "test"))??;
            assert_eq!(again, groups, "{threads} threads");
        }
        Ok(())
    }

    #[test]
    fn photos_that_are_compared_again_are_grouped_alike() -> Result<()> {
        // Clusters of many photos, with several representatives each.
        let mut random = ChaCha8Rng::seed_from_u64(4);
        let mut hashes: Vec<_> = (0..1500).map(|it| hash(it / 300, 0)).collect();
        for hash in &mut hashes {
            (0..random.random_range(0..9)).for_each(|_| hash[0] ^= 1 << random.random_range(0..u64::BITS));
        }
        let photos: Vec<_> = (0..1500).map(|id| photo(id, 1, id.into(), Some(id))).collect();
        let grouped = |kept| group_near(photos.clone(), &hashes, Nearness { distance: 8, kept, task: "test" });
        let groups = grouped(PAIRS_KEPT)?;
        let representatives = groups.iter().filter(|it| it.is_representative).count();
        assert!((20..1000).contains(&representatives), "{representatives}");
        for kept in [0, 10, 1000, 10_000] {
            assert_eq!(grouped(kept)?, groups, "{kept} pairs kept");
        }
        Ok(())
    }

    #[test]
    fn a_hundred_thousand_equal_photos_are_one_group() -> Result<()> {
        let hashes: Vec<_> = (0..100_000).map(|_| hash(1, 0)).collect();
        let photos = (0..100_000).map(|id| photo(id, 1, id.into(), Some(id))).collect();
        let groups = group(photos, &hashes, 8, "test")?;
        assert!(groups.iter().all(|it| it.group_id == 0 && it.distance == 0 && !it.is_exact_copy));
        Ok(())
    }

    #[test]
    fn a_row_without_a_hash_goes_with_the_one_of_its_content() -> Result<()> {
        let hashes = [hash(1, 0), hash(1, 3)];
        let photos = vec![photo(0, 9, 1, None), photo(1, 8, 1, Some(0)), photo(2, 7, 2, Some(1))];
        let expected = [(0, 0, 0, false), (1, 0, 0, true), (2, 0, 3, false)];
        assert_eq!(group(photos, &hashes, 8, "test")?, expected.map(row));
        Ok(())
    }
}
