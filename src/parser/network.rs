//! A parser's network, opened and compared with its declaration.

use std::path::Path;
use std::sync::Arc;

use half::f16;
use ort::session::Session;
use ort::value::{DynValue, Outlet, Tensor, TensorElementType, ValueType};

use super::answer::{Answer, Answered};
use super::declaration::{DIMENSIONS, Declaration, Element, Kind, Order};
use super::input::{Canvas, Values};
use super::layout::Layout;
use crate::engine::{Backend, Engine};
use crate::error::{Error, Result};
use crate::runtime::{self, failed};

/// An opened network that fits its declaration.
#[derive(Debug)]
pub struct Network {
    session: Session,
    backend: Backend,
    layout: Arc<Layout>,
    /// Its path, for messages.
    name: String,
    input: String,
    output: String,
    /// The number of photos that the network takes; `None` for any.
    batch: Option<usize>,
}

impl Network {
    /// Opens `network`, an ONNX file read from `path`, with the files of its weights (name and content).
    ///
    /// # Errors
    /// [`Error::Input`] if it is no network or does not fit the declaration, with both values; [`Error::Runtime`] if ONNX
    /// Runtime is missing or cannot run it.
    pub(super) fn open(
        path: &Path,
        network: &[u8],
        external: &[(&Path, Arc<[u8]>)],
        layout: Arc<Layout>,
        engine: Engine,
    ) -> Result<Self> {
        let name = path.display().to_string();
        let (session, backend) = runtime::foreign_session(&name, network, external, engine)?;
        let fitted = Fitted::new(&layout.declaration, session.inputs(), session.outputs());
        let Fitted { input, output, batch } =
            fitted.map_err(|problem| Error::input(path, format!("does not fit its declaration: {problem}")))?;
        Ok(Self { session, backend, layout, name, input, output, batch })
    }

    /// How photos are laid onto the input, and answers read.
    #[must_use]
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The backend actually in use.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The network's path.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of photos that the network takes at once; `None` for any.
    #[must_use]
    pub fn batch(&self) -> Option<usize> {
        self.batch
    }

    /// Runs the network. Returns one answer per canvas.
    ///
    /// # Errors
    /// [`Error::Runtime`] if it fails, or if its output is not of the declared shape.
    pub fn run(&mut self, canvases: &[&Canvas]) -> Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(canvases.len());
        for canvases in canvases.chunks(self.batch.unwrap_or(canvases.len()).max(1)) {
            let size = self.batch.unwrap_or(canvases.len());
            let input = self.tensor(canvases, size)?;
            let name = &self.name;
            let outputs = self.session.run(ort::inputs! { self.input.as_str() => input }).map_err(failed(name))?;
            let of_output = answers_of(&self.layout.declaration, &outputs[self.output.as_str()], size);
            let of_output =
                of_output.map_err(|problem| Error::runtime(name, format!("'{}': {problem}", self.output)))?;
            answers.extend(of_output.into_iter().take(canvases.len()));
        }
        Ok(answers)
    }

    /// The input of a batch of `size`; the last canvas fills it up.
    fn tensor(&self, canvases: &[&Canvas], size: usize) -> Result<DynValue> {
        let input = &self.layout.declaration.input;
        let [channels, rows, columns] = [3, input.height_px as usize, input.width_px as usize];
        let dims = match input.layout {
            Order::Nchw => [size, channels, rows, columns],
            Order::Nhwc => [size, rows, columns, channels],
        };
        let values = || {
            let last = canvases.last().expect("a batch has a photo");
            canvases.iter().chain(std::iter::repeat(last)).take(size).map(|it| &it.values)
        };
        macro_rules! tensor {
            ($kind:path) => {{
                let all: Vec<&[_]> =
                    values().filter_map(|it| if let $kind(it) = it { Some(&it[..]) } else { None }).collect();
                Tensor::from_array((dims, all.concat())).map(|it| it.into_dyn())
            }};
        }
        let tensor = match input.r#type {
            Element::U8 => tensor!(Values::U8),
            Element::F32 => tensor!(Values::F32),
            Element::F16 => tensor!(Values::F16),
        };
        tensor.map_err(failed(&self.name))
    }
}

/// The names by which a declaration and a network meet.
struct Fitted {
    input: String,
    output: String,
    batch: Option<usize>,
}

impl Fitted {
    /// Compares a declaration with the inputs and outputs of a network.
    fn new(declaration: &Declaration, inputs: &[Outlet], outputs: &[Outlet]) -> Result<Self, String> {
        let Declaration { input, output, .. } = declaration;
        let fed = named("input", input.name.as_deref(), inputs)?;
        if inputs.len() > 1 {
            return Err(format!("it has the inputs {}; only one can be fed", names(inputs)));
        }
        let (name, shape) = tensor("input", fed, &[element_type(input.r#type)], input.r#type.name())?;
        if shape.len() != 4 {
            let (layout, found) = (input.layout.name(), shown(&shape));
            return Err(format!("input.layout is {layout}, of 4 dimensions, but '{name}' is {found}"));
        }
        let [channels, rows, columns] = input.layout.axes();
        for (what, axis, declared) in [
            (format!("input.layout is {}, with 3 channels at place {channels}", input.layout.name()), channels, 3),
            (format!("input.height_px is {}", input.height_px), rows, i64::from(input.height_px)),
            (format!("input.width_px is {}", input.width_px), columns, i64::from(input.width_px)),
        ] {
            if shape[axis] >= 0 && shape[axis] != declared {
                return Err(format!("{what}, but '{name}' is {}", shown(&shape)));
            }
        }
        let batch = usize::try_from(shape[0]).ok();
        if batch == Some(0) {
            return Err(format!("'{name}' is {}: it takes no photo", shown(&shape)));
        }
        let read = named("output", output.name.as_deref(), outputs)?;
        Self::check_output(declaration, read, shape[0])?;
        Ok(Self { input: name.to_owned(), output: read.name().to_owned(), batch })
    }

    fn check_output(declaration: &Declaration, outlet: &Outlet, batch: i64) -> Result<(), String> {
        let output = &declaration.output;
        let (accepted, kind): (&[_], _) = match output.kind {
            Kind::Logits => (&[TensorElementType::Float32, TensorElementType::Float16], "logits, of f32 or f16"),
            Kind::Probabilities => {
                (&[TensorElementType::Float32, TensorElementType::Float16], "probabilities, of f32 or f16")
            }
            Kind::Embedding => (&[TensorElementType::Float32, TensorElementType::Float16], "embedding, of f32 or f16"),
            Kind::LabelMap => (
                &[TensorElementType::Uint8, TensorElementType::Int32, TensorElementType::Int64],
                "label_map, of u8, i32 or i64",
            ),
        };
        let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
            return Err(format!("'{}' is not a tensor", outlet.name()));
        };
        if !accepted.contains(ty) {
            return Err(format!("output.kind is {kind}, but '{}' holds {ty}", outlet.name()));
        }
        if shape.is_empty() {
            // The file does not say; what comes out is checked.
            return Ok(());
        }
        if batch > 0 && shape[0] > 0 && shape[0] != batch {
            return Err(format!("it takes {batch} photos, but '{}' is {}", outlet.name(), shown(shape)));
        }
        shape_of(declaration, shape)
            .map(drop)
            .map_err(|problem| format!("{problem}, but '{}' is {}", outlet.name(), shown(shape)))
    }
}

/// Rows and columns of an output of a shape, if it fits; unknown sizes are negative.
fn shape_of(declaration: &Declaration, shape: &[i64]) -> Result<[i64; 2], String> {
    let output = &declaration.output;
    let [classes, rows, columns] = output.layout.axes();
    let layout = output.layout.name();
    if output.kind == Kind::Embedding {
        let [least, most] = DIMENSIONS;
        let is_one = |it: &i64| *it == 1 || *it < 0;
        return match shape {
            [_, found, rest @ ..]
                if (*found < 0 || (least as i64..=most as i64).contains(found))
                    && [0, 2].contains(&rest.len())
                    && rest.iter().all(is_one) =>
            {
                Ok([1, 1])
            }
            _ => Err(format!(
                "output.kind is embedding, {least} to {most} numbers as [batch, numbers] or [batch, numbers, 1, 1]"
            )),
        };
    }
    if output.kind == Kind::LabelMap {
        return match shape {
            [_, rows, columns] => Ok([*rows, *columns]),
            [_, _, _, _] if shape[classes] == 1 || shape[classes] < 0 => Ok([shape[rows], shape[columns]]),
            _ => Err(format!("output.kind is label_map, [batch, rows, columns] or {layout} with 1 channel")),
        };
    }
    if shape.len() != 4 {
        return Err(format!("output.layout is {layout}, of 4 dimensions"));
    }
    let labels = output.labels.len();
    if shape[classes] >= 0 && shape[classes] != labels as i64 {
        return Err(format!("output.labels has {labels} names, at place {classes} of {layout}"));
    }
    Ok([shape[rows], shape[columns]])
}

/// The answer for each photo of an output of `size` photos.
fn answers_of(declaration: &Declaration, output: &DynValue, size: usize) -> Result<Vec<Answer>, String> {
    let said = |cause: ort::Error| cause.to_string();
    let ValueType::Tensor { ty, shape, .. } = output.dtype() else { return Err("is not a tensor".to_owned()) };
    let [rows, columns] =
        shape_of(declaration, shape).map_err(|problem| format!("{problem}, but it gave {}", shown(shape)))?;
    if shape[0] != size as i64 || rows < 1 || columns < 1 {
        return Err(format!("gave {} for {size} photos", shown(shape)));
    }
    let [rows, columns] = [rows, columns].map(|it| it as usize);
    let answer = |values| Answer { rows, columns, values };
    macro_rules! each {
        ($element:ty, $convert:expr) => {{
            let (_, values) = output.try_extract_tensor::<$element>().map_err(said)?;
            values.chunks_exact(values.len() / size).map(|it| it.iter().map($convert).collect::<Vec<_>>())
        }};
    }
    let planar = |values: Vec<f32>| match declaration.output.layout {
        _ if declaration.output.kind == Kind::Embedding => answer(Answered::Embedding(values)),
        Order::Nchw => answer(Answered::Scores(values)),
        Order::Nhwc => {
            let classes = values.len() / (rows * columns);
            let plane = |class: usize| values[class..].iter().step_by(classes).copied();
            answer(Answered::Scores((0..classes).flat_map(plane).collect()))
        }
    };
    let classes = |values| answer(Answered::Classes(values));
    Ok(match ty {
        TensorElementType::Float32 => each!(f32, |it| *it).map(planar).collect(),
        TensorElementType::Float16 => each!(f16, |it| it.to_f32()).map(planar).collect(),
        TensorElementType::Uint8 => each!(u8, |it| i64::from(*it)).map(classes).collect(),
        TensorElementType::Int32 => each!(i32, |it| i64::from(*it)).map(classes).collect(),
        TensorElementType::Int64 => each!(i64, |it| *it).map(classes).collect(),
        other => return Err(format!("gave {other}")),
    })
}

/// The input or output that a declaration names; without a name the only one.
fn named<'a>(side: &str, name: Option<&str>, outlets: &'a [Outlet]) -> Result<&'a Outlet, String> {
    match (name, outlets) {
        (Some(name), _) => outlets
            .iter()
            .find(|it| it.name() == name)
            .ok_or_else(|| format!("{side}.name is '{name}', but its {side}s are {}", names(outlets))),
        (None, [only]) => Ok(only),
        (None, _) => Err(format!("{side}.name is missing, and its {side}s are {}", names(outlets))),
    }
}

fn names(outlets: &[Outlet]) -> String {
    let names: Vec<_> = outlets.iter().map(|it| format!("'{}'", it.name())).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn tensor<'a>(
    side: &str,
    outlet: &'a Outlet,
    accepted: &[TensorElementType],
    declared: &str,
) -> Result<(&'a str, Vec<i64>), String> {
    let name = outlet.name();
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } if accepted.contains(ty) => Ok((name, shape.to_vec())),
        ValueType::Tensor { ty, .. } => Err(format!("{side}.type is {declared}, but '{name}' takes {ty}")),
        _ => Err(format!("'{name}' is not a tensor")),
    }
}

fn element_type(element: Element) -> TensorElementType {
    match element {
        Element::F32 => TensorElementType::Float32,
        Element::F16 => TensorElementType::Float16,
        Element::U8 => TensorElementType::Uint8,
    }
}

/// A shape for people; what is not fixed is `?`.
fn shown(shape: &[i64]) -> String {
    let sides: Vec<_> = shape.iter().map(|&it| if it < 0 { "?".to_owned() } else { it.to_string() }).collect();
    format!("[{}]", sides.join(", "))
}
