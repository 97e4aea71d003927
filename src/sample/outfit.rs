//! Who wears what: drawn in rounds, so that any six consecutive photos show nearly every category.

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::labels::CATEGORIES;

/// Photos per round: each upper garment appears once.
const ROUND: usize = 6;

/// The garment on the upper body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upper {
    Tshirt,
    Blouse,
    Sweater,
    Blazer,
    Coat,
    Dress,
}

/// The garment on the hips and legs; `None` under a dress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lower {
    Jeans,
    Pants,
    Legging,
    Shorts,
    Skirt,
}

/// What is worn on bare legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Legwear {
    Bare,
    Stocking,
    Socks,
}

/// One photo's clothes. Colours are ids of [`crate::labels::COLORS`], 1 to 12.
#[derive(Debug, Clone)]
// Accessories are independent of each other.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Outfit {
    pub(super) upper: Upper,
    pub(super) lower: Option<Lower>,
    pub(super) legwear: Legwear,
    pub(super) hat: bool,
    pub(super) sunglass: bool,
    pub(super) scarf: bool,
    pub(super) bag: bool,
    pub(super) belt: bool,
    colors: [u8; CATEGORIES.len()],
}

impl Outfit {
    /// The colour of a category's garment in this photo.
    pub(super) fn color(&self, category: u8) -> u8 {
        self.colors[usize::from(category)]
    }
}

/// The outfits of all photos. The last photo ends a round, so the test split, which is last in file order, consists of
/// whole rounds.
pub(super) fn plan(photos: usize, seed: u64) -> Vec<Outfit> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut decks = vec![Vec::new(); CATEGORIES.len()];
    let rounds = photos.div_ceil(ROUND);
    (0..rounds).flat_map(|_| round(&mut rng, &mut decks)).skip(rounds * ROUND - photos).collect()
}

fn round(rng: &mut ChaCha8Rng, decks: &mut [Vec<u8>]) -> Vec<Outfit> {
    let mut uppers = [Upper::Tshirt, Upper::Blouse, Upper::Sweater, Upper::Blazer, Upper::Coat, Upper::Dress];
    shuffle(rng, &mut uppers);
    let mut lowers = [Lower::Jeans, Lower::Pants, Lower::Legging, Lower::Shorts, Lower::Skirt];
    let long = |lower: Option<&Lower>| !matches!(lower, Some(Lower::Shorts | Lower::Skirt));
    // The coat reaches the knees: only long legwear shows under it.
    shuffle(rng, &mut lowers);
    while !long(lowers.first()) {
        shuffle(rng, &mut lowers);
    }
    let (for_coat, mut others) = (lowers[0], lowers[1..].to_vec());
    let mut legwears = [Legwear::Stocking, Legwear::Socks, Legwear::Bare];
    shuffle(rng, &mut legwears);
    let mut legwears = legwears.into_iter().cycle();
    let (hats, glasses, scarves) = (flags(rng, 3), flags(rng, 3), flags(rng, 2));
    let (bags, belts) = (flags(rng, 3), flags(rng, 3));
    let mut outfits = Vec::with_capacity(ROUND);
    for (index, upper) in uppers.into_iter().enumerate() {
        let lower = match upper {
            Upper::Dress => None,
            Upper::Coat => Some(for_coat),
            _ => others.pop(),
        };
        let bare = matches!(lower, None | Some(Lower::Shorts | Lower::Skirt));
        let legwear = if bare { legwears.next().unwrap_or(Legwear::Bare) } else { Legwear::Bare };
        outfits.push(Outfit {
            upper,
            lower,
            legwear,
            hat: hats[index],
            sunglass: glasses[index],
            scarf: scarves[index],
            bag: bags[index],
            belt: belts[index],
            colors: colors(rng, decks),
        });
    }
    outfits
}

/// A colour for each category, dealt from the category's own shuffled deck, so that all colours appear.
fn colors(rng: &mut ChaCha8Rng, decks: &mut [Vec<u8>]) -> [u8; CATEGORIES.len()] {
    let mut colors = [0; CATEGORIES.len()];
    for (category, color) in colors.iter_mut().enumerate().skip(1) {
        let deck = &mut decks[category];
        if deck.is_empty() {
            *deck = typical_colors(CATEGORIES[category]).to_vec();
            shuffle(rng, deck);
        }
        *color = deck.pop().unwrap_or(2);
    }
    // The face has the same colour as the rest of the skin.
    colors[8] = colors[17];
    colors
}

/// The colours that a category mostly comes in, as in real clothes, which even a network that sees few photos can
/// learn.
fn typical_colors(category: &str) -> &'static [u8] {
    match category {
        "T-shirt" | "socks" => &[11, 11, 11, 12],
        "bag" => &[4, 4, 4, 10],
        "belt" => &[2, 2, 7],
        "blazer" => &[5, 5, 5, 3],
        "blouse" => &[8, 8, 8, 9],
        "coat" => &[4, 4, 4, 1],
        "dress" => &[10, 10, 10, 12],
        "face" | "skin" => &[1, 1, 4],
        "hair" => &[2, 2, 4, 4, 12, 7],
        "hat" => &[6, 6, 6, 9],
        "jeans" => &[3, 3, 3, 3, 5],
        "legging" => &[2, 2, 2, 9],
        "pants" => &[1, 1, 1, 6],
        "scarf" => &[12, 12, 12, 10],
        "shoe" => &[2, 2, 4, 10],
        "shorts" => &[6, 6, 6, 3],
        "skirt" => &[9, 9, 9, 8],
        "stocking" => &[5, 5, 5, 2],
        "sunglass" => &[2, 2, 2, 4],
        "sweater" => &[7, 7, 7, 6],
        _ => &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
    }
}

fn flags(rng: &mut ChaCha8Rng, count: usize) -> [bool; ROUND] {
    let mut flags = [false; ROUND];
    flags[..count].fill(true);
    shuffle(rng, &mut flags);
    flags
}

fn shuffle<T>(rng: &mut ChaCha8Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.random_range(0..=last as u32) as usize);
    }
}
