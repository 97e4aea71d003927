//! From a photo to the network's input, and from its answer to a label map of our categories: what the workers know of a
//! parser.

use super::answer::{Answer, Answered};
use super::declaration::{Declaration, Kind, Resize};
use super::input::{Canvas, Placed};
use crate::labels::BACKGROUND;
use crate::photo::Photo;

/// How photos are laid onto a parser's input, and its answers read.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    pub(super) declaration: Declaration,
    /// The category of each label.
    pub(super) categories: Vec<u8>,
}

/// The categories of pixels, and how sure the network is of each.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// `[height, width]`.
    pub label_map: Vec<u8>,
    /// The probability of each pixel's category, 0 to 1: that of all its labels together; 1 if the network gives classes.
    pub certainty: Vec<f32>,
}

/// Between which two places of the answer a pixel lies, and how near to the second, 0 to 1.
#[derive(Debug, Clone, Copy)]
struct Between {
    first: usize,
    second: usize,
    weight: f32,
}

/// The places of an answer that the pixels of a row or column of the photo take their labels from; `None` beyond its
/// bounds.
type Taken<T> = Vec<Option<T>>;

impl Layout {
    /// Lays a photo onto the network's input.
    #[must_use]
    pub fn lay(&self, photo: &Photo) -> Canvas {
        Canvas::new(&self.declaration.input, photo)
    }

    /// The category of each pixel of the photo on `canvas` at the size `to` (width, height): `[height, width]`. What lies
    /// outside of the network's input is background.
    ///
    /// # Errors
    /// What is wrong with the answer: a score that is NaN or infinite, a class without a label.
    pub fn label_map(&self, canvas: &Canvas, answer: &Answer, to: (u32, u32)) -> Result<Vec<u8>, String> {
        self.read::<false>(canvas.placed, answer, to).map(|it| it.label_map)
    }

    /// As [`Layout::label_map`], with how sure the network is.
    ///
    /// # Errors
    /// As [`Layout::label_map`].
    pub fn decide(&self, canvas: &Canvas, answer: &Answer, to: (u32, u32)) -> Result<Decided, String> {
        self.read::<true>(canvas.placed, answer, to)
    }

    fn read<const SURE: bool>(&self, placed: Placed, answer: &Answer, to: (u32, u32)) -> Result<Decided, String> {
        let input = &self.declaration.input;
        let axis = |start, length, side, count, pixels| Axis { start, length, side: f64::from(side), count, pixels };
        let across = axis(placed.left, placed.width, input.width_px, answer.columns, to.0);
        let down = axis(placed.top, placed.height, input.height_px, answer.rows, to.1);
        match &answer.values {
            Answered::Classes(classes) => {
                let mut label_map = Vec::with_capacity(classes.len());
                for &class in classes {
                    let label = usize::try_from(class).ok().and_then(|it| self.categories.get(it));
                    label_map.push(*label.ok_or_else(|| {
                        format!("the network gave the class {class}, but output.labels has {}", self.categories.len())
                    })?);
                }
                let certainty = if SURE { vec![1.0; label_map.len()] } else { Vec::new() };
                Ok(picked(&Decided { label_map, certainty }, answer.columns, &down.nearest(), &across.nearest()))
            }
            Answered::Embedding(_) => Err("the network gave an embedding, which names no pixels".to_owned()),
            Answered::Scores(scores) => {
                if let Some(score) = scores.iter().find(|it| !it.is_finite()) {
                    return Err(format!("the network gave a score of {score}"));
                }
                let scores = Scores { values: scores, answer, layout: self };
                if self.declaration.output.resize() == Resize::Logits {
                    return Ok(scores.decide::<SURE>(&down.between(), &across.between()));
                }
                let each = |count| (0..count).map(|at| Some(Between { first: at, second: at, weight: 0.0 })).collect();
                let own = scores.decide::<SURE>(&each(answer.rows), &each(answer.columns));
                Ok(picked(&own, answer.columns, &down.nearest(), &across.nearest()))
            }
        }
    }

    /// The probability of the category that `best` belongs to, from the scores of all labels.
    fn certainty(&self, scores: impl Iterator<Item = f32> + Clone, best: usize) -> f32 {
        let category = self.categories[best];
        let of_category = |values: &mut dyn Iterator<Item = f32>| {
            let mut sums = [0.0; 2];
            for (value, of) in values.zip(&self.categories) {
                sums[0] += value;
                sums[1] += if *of == category { value } else { 0.0 };
            }
            sums
        };
        if self.declaration.output.kind == Kind::Probabilities {
            return of_category(&mut scores.clone())[1].clamp(0.0, 1.0);
        }
        let highest = scores.clone().fold(f32::MIN, f32::max);
        let [all, own] = of_category(&mut scores.map(|it| (it - highest).exp()));
        own / all
    }
}

/// One direction of the photo on the network's answer.
struct Axis {
    /// Where the photo begins on the input, and how long it is there.
    start: f64,
    length: f64,
    /// Length of the input.
    side: f64,
    /// Length of the answer.
    count: usize,
    /// Length of the label map.
    pixels: u32,
}

impl Axis {
    /// Where the centre of each pixel lies, in places of the answer; `None` outside of the input.
    fn places(&self) -> impl Iterator<Item = Option<f64>> {
        (0..self.pixels).map(|pixel| {
            let on_input = self.start + (f64::from(pixel) + 0.5) * self.length / f64::from(self.pixels);
            (0.0..self.side).contains(&on_input).then(|| on_input * self.count as f64 / self.side)
        })
    }

    /// The first and last place of the answer that the photo lies in: nothing is taken from what surrounds it.
    fn bounds(&self) -> [usize; 2] {
        let scale = self.count as f64 / self.side;
        let [first, end] = [self.start * scale, (self.start + self.length) * scale];
        let last = (end.ceil() as usize).clamp(1, self.count) - 1;
        [(first.max(0.0) as usize).min(last), last]
    }

    fn nearest(&self) -> Taken<usize> {
        let [first, last] = self.bounds();
        self.places().map(|place| Some((place? as usize).clamp(first, last))).collect()
    }

    /// As `PyTorch`'s `interpolate(mode="bilinear", align_corners=False)`.
    fn between(&self) -> Taken<Between> {
        let [least, last] = self.bounds();
        let between = |place: f64| {
            let place = (place - 0.5).clamp(least as f64, last as f64);
            let first = place as usize;
            Between { first, second: (first + 1).min(last), weight: (place - first as f64) as f32 }
        };
        self.places().map(|place| place.map(between)).collect()
    }
}

fn picked(from: &Decided, stride: usize, rows: &Taken<usize>, columns: &Taken<usize>) -> Decided {
    let pixels = || rows.iter().flat_map(|row| columns.iter().map(move |column| Some((*row)? * stride + (*column)?)));
    let label_map = pixels().map(|at| at.map_or(BACKGROUND, |at| from.label_map[at])).collect();
    let certainty = if from.certainty.is_empty() {
        Vec::new()
    } else {
        pixels().map(|at| at.map_or(0.0, |at| from.certainty[at])).collect()
    };
    Decided { label_map, certainty }
}

/// The scores of an answer.
struct Scores<'a> {
    /// `[classes, rows, columns]`.
    values: &'a [f32],
    answer: &'a Answer,
    layout: &'a Layout,
}

impl Scores<'_> {
    /// The category with the highest score at each crossing of `rows` and `columns`, the first on a tie.
    fn decide<const SURE: bool>(&self, rows: &Taken<Between>, columns: &Taken<Between>) -> Decided {
        let (width, classes) = (columns.len(), self.layout.categories.len());
        let mut decided = Decided { label_map: Vec::with_capacity(rows.len() * width), certainty: Vec::new() };
        let mut line = vec![0.0; self.answer.columns];
        let mut scores = vec![0.0; classes * width];
        let (mut best, mut labels) = (vec![0.0; width], vec![0_u8; width]);
        for row in rows {
            let Some(row) = row else {
                decided.label_map.extend(std::iter::repeat_n(BACKGROUND, width));
                decided.certainty.extend(std::iter::repeat_n(0.0, if SURE { width } else { 0 }));
                continue;
            };
            for (class, scores) in scores.chunks_exact_mut(width).enumerate() {
                self.blend(class, *row, &mut line);
                for (score, column) in scores.iter_mut().zip(columns) {
                    let it = column.unwrap_or(Between { first: 0, second: 0, weight: 0.0 });
                    let [first, second] = [line[it.first], line[it.second]];
                    *score = first + (second - first) * it.weight;
                }
                if class == 0 {
                    best.copy_from_slice(scores);
                    labels.fill(0);
                    continue;
                }
                for ((best, label), &score) in best.iter_mut().zip(&mut labels).zip(scores.iter()) {
                    let is_better = score > *best;
                    *best = if is_better { score } else { *best };
                    *label = if is_better { class as u8 } else { *label };
                }
            }
            let category = |(label, column): (&u8, &Option<Between>)| {
                column.map_or(BACKGROUND, |_| self.layout.categories[usize::from(*label)])
            };
            decided.label_map.extend(labels.iter().zip(columns).map(category));
            if SURE {
                let certainty = |at: usize| {
                    let of_pixel = scores[at..].iter().step_by(width).copied();
                    columns[at].map_or(0.0, |_| self.layout.certainty(of_pixel, usize::from(labels[at])))
                };
                decided.certainty.extend((0..width).map(certainty));
            }
        }
        decided
    }

    /// A line of the map of a class between two of its rows.
    fn blend(&self, class: usize, row: Between, line: &mut [f32]) {
        let Answer { rows, columns, .. } = *self.answer;
        let of_row = |row: usize| &self.values[(class * rows + row) * columns..][..columns];
        for ((value, first), second) in line.iter_mut().zip(of_row(row.first)).zip(of_row(row.second)) {
            *value = first + (second - first) * row.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::declaration::GOOD;
    use super::*;

    /// An input of 4 x 4 pixels; labels 0, 1 and 2 are the categories 0, 10 and 1.
    fn layout(output: &str, fit: &str) -> Layout {
        let text = GOOD.replace("kind = \"logits\"", output).replace("fit = \"stretch\"", fit);
        let mut declaration: Declaration = toml::from_str(&text).expect("it is good");
        (declaration.input.width_px, declaration.input.height_px) = (4, 4);
        Layout { declaration, categories: vec![0, 10, 1] }
    }

    fn laid(layout: &Layout, width_px: u32, height_px: u32) -> Canvas {
        layout.lay(&Photo { width_px, height_px, rgb: vec![7; (width_px * height_px * 3) as usize] })
    }

    fn scores(columns: usize, values: &[f32]) -> Answer {
        Answer { rows: values.len() / 3 / columns, columns, values: Answered::Scores(values.to_vec()) }
    }

    #[test]
    fn scores_are_interpolated_before_the_highest_is_taken() {
        // One row of two places: class 0 falls from 3 to 0, class 1 is 1 everywhere, class 2 rises from 0 to 1.5.
        let answer = scores(2, &[3.0, 0.0, 1.0, 1.0, 0.0, 1.5]);
        let it = layout("kind = \"logits\"", "fit = \"stretch\"");
        let canvas = laid(&it, 8, 1);
        // At eight pixels the weight of the second is 0, 0, 1/8, 3/8, 5/8, 7/8, 1, 1.
        assert_eq!(it.label_map(&canvas, &answer, (8, 1)), Ok(vec![0, 0, 0, 0, 0, 1, 1, 1]));
        let it = layout("kind = \"logits\"\nresize = \"labels\"", "fit = \"stretch\"");
        assert_eq!(it.label_map(&canvas, &answer, (8, 1)), Ok(vec![0, 0, 0, 0, 1, 1, 1, 1]));
    }

    #[test]
    fn certainty_is_that_of_the_category() {
        let mut it = layout("kind = \"probabilities\"", "fit = \"stretch\"");
        it.categories = vec![0, 15, 15];
        let canvas = laid(&it, 1, 1);
        let decided = it.decide(&canvas, &scores(1, &[0.25, 0.5, 0.25]), (1, 1)).expect("finite");
        assert_eq!(decided, Decided { label_map: vec![15], certainty: vec![0.75] });
        let it = layout("kind = \"logits\"", "fit = \"stretch\"");
        let decided = it.decide(&canvas, &scores(1, &[0.0, 2.0_f32.ln(), 0.0]), (1, 1)).expect("finite");
        assert!((decided.certainty[0] - 0.5).abs() < 1e-6 && decided.label_map == [10], "{decided:?}");
        let classes = Answer { rows: 1, columns: 1, values: Answered::Classes(vec![2]) };
        let decided = it.decide(&canvas, &classes, (2, 1)).expect("it has a label");
        assert_eq!(decided, Decided { label_map: vec![1; 2], certainty: vec![1.0; 2] });
    }

    #[test]
    fn a_letterbox_gives_nothing_of_its_border_and_a_crop_has_background_around_it() {
        let classes = |values: &[i64]| Answer { rows: 4, columns: 4, values: Answered::Classes(values.to_vec()) };
        let it = layout("kind = \"label_map\"", "fit = \"letterbox\"");
        // A photo of 4 x 2 lies in the two rows of the middle.
        let map = classes(&[2, 2, 2, 2, 0, 1, 0, 1, 1, 0, 1, 0, 2, 2, 2, 2]);
        assert_eq!(it.label_map(&laid(&it, 8, 4), &map, (4, 2)), Ok(vec![0, 10, 0, 10, 10, 0, 10, 0]));
        let it = layout("kind = \"label_map\"", "fit = \"crop\"");
        // Of a photo of 8 x 4 the four columns of the middle.
        let decided = it.label_map(&laid(&it, 8, 4), &classes(&[1; 16]), (8, 1));
        assert_eq!(decided, Ok(vec![0, 0, 10, 10, 10, 10, 0, 0]));
        let it = layout("kind = \"logits\"", "fit = \"letterbox\"");
        let mut values = vec![0.0; 48];
        // Class 1 in the photo's rows, class 2, far surer, in the border.
        values[16 + 4..16 + 12].fill(1.0);
        values[32..36].fill(9.0);
        values[44..].fill(9.0);
        assert_eq!(it.label_map(&laid(&it, 8, 4), &scores(4, &values), (8, 4)), Ok(vec![10; 32]));
    }

    #[test]
    fn an_answer_that_is_none_is_refused() {
        let it = layout("kind = \"logits\"", "fit = \"stretch\"");
        let canvas = laid(&it, 2, 2);
        for value in [f32::NAN, f32::INFINITY] {
            let problem = it.label_map(&canvas, &scores(1, &[0.0, value, 1.0]), (2, 2)).expect_err("it is not finite");
            assert!(problem.contains(&value.to_string()), "{problem}");
        }
        for class in [-1, 3, 256, i64::MAX] {
            let answer = Answer { rows: 1, columns: 1, values: Answered::Classes(vec![class]) };
            let problem = it.label_map(&canvas, &answer, (2, 2)).expect_err("there is no such label");
            assert!(problem.contains(&class.to_string()) && problem.contains("has 3"), "{problem}");
        }
    }
}
