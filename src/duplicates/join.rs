//! All pairs of photos whose hashes are near each other, without comparing all with all.
//!
//! Two photos are near if there is a view of one that is near the whole view of the other, mirrored or not: the lower words of
//! their hashes differ in at most `distance` bits, and both words together in at most [`ALL_BITS`] times as many.
//!
//! Multi-index hashing (M. Norouzi, A. Punjani, D. Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012):
//! the lower word is cut into three chunks, and of two words that differ in at most `r` bits, one pair of chunks differs in
//! few, by the general pigeonhole principle (J. Qin et al., "GPH: Similarity Search in Hamming Space", ICDE 2018) in at most
//! t1, t2 or t3 bits if t1 + t2 + t3 = r - 2. So each chunk is looked up among all chunks that differ in so few bits: for 8
//! bits, 2 of 21 or 22, which is 232 or 254 of two or four million buckets. The photos of one bucket are compared with those of the
//! other at once, from sorted arrays. Nothing is approximate: these are the pairs that a comparison of all with all would find.

use std::ops::Range;

use lookbook_ops::{Instructions, hamming};
use rayon::prelude::*;

use crate::error::Result;
use crate::photo::hashes::{CropResistantHash, VIEWS, WORDS, mirrored};
use crate::progress::Progress;
use crate::stop;

/// The largest distance for which lookups are few: chunks that differ in 3 bits.
pub const MAX_DISTANCE: u32 = 11;
/// The higher word may differ in twice as many bits as the lower one.
pub(super) const ALL_BITS: u32 = 3;
/// The chunks of the lower word: first bit, and number of bits.
const CHUNKS: [(u32, u32); 3] = [(0, 21), (21, 21), (42, 22)];
/// Hashes that are looked up between two sorts: 16 bytes each.
const AT_ONCE: usize = 1 << 24;
/// Buckets of a task.
const TASK_BUCKETS: usize = 1 << 10;

/// Two photos that are near each other, as places among the photos compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    /// The later one.
    pub(super) later: u32,
    /// The earlier one.
    pub(super) earlier: u32,
    /// Bits in which the lower words of two views differ that are near.
    pub(super) distance: u32,
}

/// The hashes that are compared: those of `hashes` at the places `of`.
#[derive(Clone, Copy)]
pub(super) struct Compared<'a> {
    pub(super) hashes: &'a [CropResistantHash],
    pub(super) of: &'a [u32],
}

impl Compared<'_> {
    /// The hash of a view.
    fn view(&self, photo: u32, view: usize) -> [u64; WORDS] {
        let hash = &self.hashes[self.of[photo as usize] as usize];
        std::array::from_fn(|word| hash[view * WORDS + word])
    }
}

/// Calls `near` with every pair of `compared` that is near within `distance`, from several threads at once, in any order, and
/// more than once if several views or chunks find it: the smallest distance is the pair's.
///
/// # Errors
/// [`crate::Error::Stopped`].
pub(super) fn each_pair(
    compared: Compared,
    distance: u32,
    task: &'static str,
    near: impl Fn(Pair) + Sync,
) -> Result<()> {
    let progress = Progress::new(task, (compared.of.len() * VIEWS * CHUNKS.len()) as u64, "lookups");
    for (chunk, most) in thresholds(distance).into_iter().enumerate() {
        let Some(most) = most else { continue };
        let (deltas, instructions) = (deltas(CHUNKS[chunk].1, most), Instructions::best());
        let join = Join { compared, distance, chunk, deltas, instructions, near: &near };
        let index = Sorted::new(join.words(|_, view| view == 0), chunk);
        for part in join.parts() {
            let queries = Sorted::new(join.words(|word, _| part.contains(&chunk_of(word, chunk))), chunk);
            join.run(&queries, &index, &progress)?;
        }
    }
    Ok(())
}

/// For each chunk, the number of bits in which it is looked up; `None` if the others suffice.
fn thresholds(distance: u32) -> [Option<u32>; CHUNKS.len()] {
    let sum = i64::from(distance) - CHUNKS.len() as i64 + 1;
    std::array::from_fn(|chunk| u32::try_from((sum + chunk as i64).div_euclid(CHUNKS.len() as i64)).ok())
}

/// All numbers of `bits` bits of which at most `most` are set, the smallest number of set bits first.
fn deltas(bits: u32, most: u32) -> Vec<u32> {
    let (mut all, mut last) = (vec![0], vec![(0, 0)]);
    for _ in 0..most {
        let more = |(delta, next): (u32, u32)| (next..bits).map(move |bit| (delta | 1 << bit, bit + 1));
        last = last.into_iter().flat_map(more).collect();
        all.extend(last.iter().map(|(delta, _)| *delta));
    }
    all
}

fn chunk_of(word: u64, chunk: usize) -> u32 {
    let (first, bits) = CHUNKS[chunk];
    (word >> first) as u32 & ((1 << bits) - 1)
}

/// A lower word, and whose it is.
#[derive(Clone, Copy)]
struct Word {
    word: u64,
    /// The photo and the view, `photo * VIEWS + view`.
    of: u32,
}

/// Lower words in order of one of their chunks.
struct Sorted {
    words: Vec<u64>,
    of: Vec<u32>,
    /// For each bucket, its first place; and the end.
    starts: Vec<u32>,
}

impl Sorted {
    fn new(mut words: Vec<Word>, chunk: usize) -> Self {
        words.par_sort_unstable_by_key(|it| (chunk_of(it.word, chunk), it.of));
        let mut starts = vec![0; (1 << CHUNKS[chunk].1) + 1];
        for it in &words {
            starts[chunk_of(it.word, chunk) as usize + 1] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let of = words.par_iter().map(|it| it.of).collect();
        Self { words: words.into_par_iter().map(|it| it.word).collect(), of, starts }
    }

    fn bucket(&self, number: u32) -> Range<usize> {
        self.starts[number as usize] as usize..self.starts[number as usize + 1] as usize
    }
}

/// The lookups by one chunk.
struct Join<'a, N> {
    compared: Compared<'a>,
    distance: u32,
    chunk: usize,
    /// What is looked up: the chunk with these bits flipped.
    deltas: Vec<u32>,
    instructions: Instructions,
    near: &'a N,
}

impl<N: Fn(Pair) + Sync> Join<'_, N> {
    /// The lower words of the views that are wanted, given the word and the number of the view.
    fn words(&self, wanted: impl Fn(u64, usize) -> bool + Sync) -> Vec<Word> {
        let (compared, wanted) = (self.compared, &wanted);
        let photos = (0..compared.of.len() as u32).into_par_iter();
        let of_photo = |photo: u32| {
            (0..VIEWS).filter_map(move |view| {
                let word = compared.view(photo, view)[0];
                wanted(word, view).then_some(Word { word, of: photo * VIEWS as u32 + view as u32 })
            })
        };
        photos.flat_map_iter(of_photo).collect()
    }

    /// Parts of the buckets whose words are sorted at the same time.
    fn parts(&self) -> impl Iterator<Item = Range<u32>> {
        let buckets = 1u32 << CHUNKS[self.chunk].1;
        let parts = (self.compared.of.len() * VIEWS).div_ceil(AT_ONCE).next_power_of_two() as u32;
        let length = buckets / parts.min(buckets);
        (0..buckets).step_by(length as usize).map(move |first| first..first + length)
    }

    /// Looks `queries` up in `index`.
    fn run(&self, queries: &Sorted, index: &Sorted, progress: &Progress) -> Result<()> {
        let buckets = queries.starts.len() - 1;
        (0..buckets.div_ceil(TASK_BUCKETS)).into_par_iter().try_for_each(|task| {
            stop::check()?;
            let buckets = task * TASK_BUCKETS..((task + 1) * TASK_BUCKETS).min(buckets);
            buckets.clone().for_each(|bucket| self.look_up(bucket as u32, queries, index));
            progress.inc(u64::from(queries.starts[buckets.end] - queries.starts[buckets.start]));
            Ok(())
        })
    }

    /// Compares a bucket's words, as they are and mirrored, with those of the buckets that differ in few bits.
    fn look_up(&self, bucket: u32, queries: &Sorted, index: &Sorted) {
        let range = queries.bucket(bucket);
        if range.is_empty() {
            return;
        }
        let of = &queries.of[range.clone()];
        for mask in [[0; WORDS], mirrored([0; WORDS])] {
            let words: Vec<u64> = queries.words[range.clone()].iter().map(|it| it ^ mask[0]).collect();
            let bucket = bucket ^ chunk_of(mask[0], self.chunk);
            for delta in &self.deltas {
                let others = index.bucket(bucket ^ delta);
                if others.is_empty() {
                    continue;
                }
                let of_others = &index.of[others.clone()];
                let mut tell = |query: usize, other: usize, bits| self.tell(of[query], of_others[other], mask, bits);
                hamming::near(self.instructions, &words, &index.words[others], self.distance, &mut tell);
            }
        }
    }

    /// Tells of a view and the whole view of a photo whose lower words differ in `bits` bits, if they are near.
    fn tell(&self, of: u32, whole: u32, mask: [u64; WORDS], bits: u32) {
        let (photo, view, other) = (of / VIEWS as u32, (of % VIEWS as u32) as usize, whole / VIEWS as u32);
        if photo == other {
            return;
        }
        let higher = self.compared.view(photo, view)[1] ^ mask[1] ^ self.compared.view(other, 0)[1];
        if bits + higher.count_ones() <= ALL_BITS * self.distance {
            (self.near)(Pair { later: photo.max(other), earlier: photo.min(other), distance: bits });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn compared(hashes: &[CropResistantHash]) -> Vec<u32> {
        (0..hashes.len() as u32).collect()
    }

    /// The word with `bits` of its bits flipped.
    fn flipped(word: u64, bits: u32, random: &mut ChaCha8Rng) -> u64 {
        let mut mask = 0u64;
        while mask.count_ones() < bits {
            mask |= 1 << random.random_range(0..u64::BITS);
        }
        word ^ mask
    }

    /// Drawn hashes, most of them near an earlier one: a view of one is the whole view of the other with some bits flipped,
    /// mirrored or not.
    fn drawn(count: usize, seed: u64) -> Vec<CropResistantHash> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut hashes: Vec<CropResistantHash> = Vec::new();
        for photo in 0..count {
            let mut hash: CropResistantHash = std::array::from_fn(|_| random.random());
            if photo % 4 != 0 {
                let near = hashes[random.random_range(0..photo)];
                let (from, to) = [(0, 0), (0, 1), (3, 0), (5, 0)][random.random_range(0..4)];
                let mut words = [near[from * WORDS], near[from * WORDS + 1]];
                if random.random() {
                    words = mirrored(words);
                }
                hash[to * WORDS] = flipped(words[0], random.random_range(0..14), &mut random);
                hash[to * WORDS + 1] = flipped(words[1], random.random_range(0..30), &mut random);
            }
            hashes.push(hash);
        }
        hashes
    }

    /// The definition, of all with all.
    fn by_brute_force(hashes: &[CropResistantHash], distance: u32) -> Vec<Pair> {
        let view = |photo: usize, view: usize| [hashes[photo][view * WORDS], hashes[photo][view * WORDS + 1]];
        let bits = |a: [u64; WORDS], b: [u64; WORDS]| [(a[0] ^ b[0]).count_ones(), (a[1] ^ b[1]).count_ones()];
        let mut pairs = Vec::new();
        for later in 0..hashes.len() {
            for earlier in 0..later {
                let both = [(later, earlier), (earlier, later)].into_iter();
                let views = both.flat_map(|(a, b)| (0..VIEWS).map(move |number| (view(a, number), view(b, 0))));
                let apart = views.flat_map(|(a, b)| [bits(a, b), bits(mirrored(a), b)]);
                let near = apart.filter(|it| it[0] <= distance && it[0] + it[1] <= ALL_BITS * distance);
                let nearest = near.map(|it| it[0]).min();
                pairs.extend(nearest.map(|distance| Pair { later: later as u32, earlier: earlier as u32, distance }));
            }
        }
        pairs
    }

    #[test]
    fn the_pairs_are_those_of_all_with_all() -> Result<()> {
        let hashes = drawn(600, 1);
        let of = compared(&hashes);
        let mut found = 0;
        for distance in 0..=MAX_DISTANCE {
            let told = Mutex::new(Vec::new());
            each_pair(Compared { hashes: &hashes, of: &of }, distance, "test", |pair| {
                told.lock().expect("no panic").push(pair);
            })?;
            let mut pairs = told.into_inner().expect("no panic");
            pairs.sort_unstable();
            pairs.dedup_by_key(|it| (it.later, it.earlier));
            assert_eq!(pairs, by_brute_force(&hashes, distance), "distance {distance}");
            assert!(pairs.len() >= found, "a larger distance finds no fewer");
            found = pairs.len();
        }
        assert!(found > 200, "{found} pairs");
        Ok(())
    }

    #[test]
    fn chunks_are_looked_up_in_as_few_bits_as_the_pigeonholes_allow() {
        assert_eq!(thresholds(0), [None, None, Some(0)]);
        assert_eq!(thresholds(1), [None, Some(0), Some(0)]);
        assert_eq!(thresholds(2), [Some(0); 3]);
        assert_eq!(thresholds(8), [Some(2); 3]);
        assert_eq!(thresholds(9), [Some(2), Some(2), Some(3)]);
        assert_eq!(deltas(3, 2), [0, 0b001, 0b010, 0b100, 0b011, 0b101, 0b110]);
        assert_eq!(deltas(21, 2).len(), 1 + 21 + 210);
    }
}
