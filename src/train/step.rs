//! The training step in ONNX Runtime. The weights and moments that one step returns are the input of the next; they
//! stay on the device.

use std::collections::HashMap;

use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session};
use ort::value::{DynValue, Tensor};

use super::checkpoint;
use super::examples::Batch;
use crate::engine::{Backend, Engine, Provider};
use crate::error::{Error, Result};
use crate::graph::{
    self, AVERAGE, AVERAGE_RATE, Descent, Dialect, GRADIENT, LossWeights, Precision, STATISTICS, STATISTICS_RATE, Spec,
    WEIGHTS, parameters,
};
use crate::model::files::TRAIN_STEP_FILE;
use crate::runtime::sessions::Sessions;
use crate::runtime::{self, failed};

const NAME: &str = TRAIN_STEP_FILE;

/// What is trained, and how it is computed.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// The network.
    pub spec: &'a Spec,
    /// The weights of the terms of a softmax loss.
    pub loss_weights: &'a LossWeights,
    /// Photos processed at once; a larger batch is split into parts whose gradients are summed.
    pub micro_batch_size: usize,
    /// Whether maps and their gradients are in half precision, as [`runtime::mixed_precision`] says.
    pub mixed_precision: bool,
    /// How steps differ between weights.
    pub descent: Descent,
}

impl<'a> Task<'a> {
    /// All pixels weighted equally, no Dice term, all photos of a batch at once, f32, Adam.
    #[must_use]
    pub fn plain(spec: &'a Spec) -> Self {
        let (mixed_precision, descent) = (false, Descent::PLAIN);
        Self { spec, loss_weights: &LossWeights::PLAIN, micro_batch_size: usize::MAX, mixed_precision, descent }
    }

    /// The precision of maps in a dialect.
    fn precision(&self, dialect: Dialect, engine: Engine) -> Precision {
        if self.mixed_precision { runtime::mixed_precision(dialect, engine) } else { Precision::F32 }
    }
}

/// The training step and its state.
#[derive(Debug)]
pub struct TrainingStep {
    spec: Spec,
    whole: Graph,
    parts: Option<Parts>,
    backend: Backend,
    precision: Precision,
    steps: u64,
    state: State,
}

/// Flat vectors by name, on the host or the device.
type State = HashMap<&'static str, DynValue>;

/// The graphs that process a large batch in parts.
#[derive(Debug)]
struct Parts {
    /// Photos per part.
    size: usize,
    accumulate: Graph,
    update: Graph,
}

/// A training graph, and the state vectors that it takes and returns.
#[derive(Debug)]
struct Graph {
    sessions: Sessions,
    scalars: Vec<&'static str>,
    takes: Vec<&'static str>,
    gives: Vec<&'static str>,
}

/// The rates of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Learning rate of Adam.
    pub learning_rate: f32,
    /// How far the averaged weights move towards the new ones, 0 to 1.
    pub average: f32,
    /// How far the statistics of normalised maps move towards those of the batch, 0 to 1.
    pub statistics: f32,
}

/// The figures that a step returns.
#[derive(Debug, Clone, Copy)]
pub struct StepFigures {
    /// Mean loss of the batch before the step; not finite if a weight after the step is not.
    pub loss: f32,
    /// Share of pixels classified correctly, 0 to 1.
    pub pixel_accuracy: f32,
}

impl TrainingStep {
    /// Creates the sessions for batches of up to `batch_size` photos. Starts from `state`, in the order of
    /// [`Spec::state`], which is that after `steps` steps.
    ///
    /// # Errors
    /// As [`runtime::session`].
    pub fn new(task: Task<'_>, batch_size: usize, state: Vec<Vec<f32>>, steps: u64, engine: Engine) -> Result<Self> {
        let Task { spec, loss_weights, micro_batch_size, descent, .. } = task;
        let names: Vec<_> = spec.state().into_iter().map(|(name, _)| name).collect();
        let train_step =
            |dialect: Dialect| graph::train_step(dialect, task.precision(dialect, engine), spec, loss_weights, descent);
        let sessions = Sessions::new(NAME, train_step, engine)?;
        let backend = sessions.backend();
        let precision = task.precision(backend.dialect, engine);
        let scalars = [&["step", "learning_rate"], spec.rates()].concat();
        let whole = Graph { sessions, scalars, takes: names.clone(), gives: names.clone() };
        let parts = (micro_batch_size < batch_size).then(|| Parts::new(task, backend.engine(engine))).transpose()?;
        let state = names.into_iter().zip(state).map(|(name, values)| Ok((name, runtime::vector(values)?)));
        let state = state.collect::<Result<_>>()?;
        Ok(Self { spec: spec.clone(), whole, parts, backend, precision, steps, state })
    }

    /// The backend actually in use.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The precision that maps are actually computed in.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Number of steps done.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.steps
    }

    /// Runs one step.
    ///
    /// # Errors
    /// Whatever ONNX Runtime reports, such as insufficient memory.
    pub fn run(&mut self, batch: Batch, rates: Rates) -> Result<StepFigures> {
        self.steps += 1;
        let step = self.steps as f32;
        match &mut self.parts {
            Some(parts) if batch.size > parts.size => {
                parts.run(self.backend, &self.spec, &batch, rates, step, &mut self.state)
            }
            _ => {
                let size = batch.size;
                let inputs = photos_and_labels(&self.spec, batch)?;
                self.whole.run(self.backend, size, inputs, rates.with(step, 1.0), &mut self.state)
            }
        }
    }

    /// The weights of the [folded](Spec::folded) inference network, on the host; the averaged ones if there is an
    /// average.
    ///
    /// # Errors
    /// Whatever ONNX Runtime reports.
    pub fn folded_weights(&self) -> Result<Vec<f32>> {
        if !self.spec.batch_norm {
            return to_host(&self.state[WEIGHTS]);
        }
        Ok(parameters::fold(&self.spec, &to_host(&self.state[AVERAGE])?, &to_host(&self.state[STATISTICS])?))
    }

    /// The input of the next step, on the host, in the order of [`Spec::state`].
    ///
    /// # Errors
    /// Whatever ONNX Runtime reports.
    pub fn state(&self) -> Result<checkpoint::State> {
        self.whole.takes.iter().map(|&name| Ok((name.to_owned(), to_host(&self.state[name])?))).collect()
    }

    /// Restores the state that [`TrainingStep::state`] returned after `steps` steps.
    ///
    /// # Errors
    /// [`Error::Runtime`] naming a vector that is missing or has another length.
    pub fn restore(&mut self, steps: u64, state: &checkpoint::State) -> Result<()> {
        for (name, len) in self.spec.state() {
            let given = state.iter().find(|(of, values)| of == name && values.len() == len);
            let (_, values) = given.ok_or_else(|| Error::runtime(NAME, format!("no '{name}' to resume from")))?;
            self.state.insert(name, runtime::vector(values.clone())?);
        }
        self.steps = steps;
        Ok(())
    }
}

/// Whether all values are finite.
pub(crate) fn are_finite(values: &[f32]) -> bool {
    // No early exit within a chunk, so that the loop is vectorized.
    values.chunks(256).all(|chunk| chunk.iter().fold(true, |finite, value| finite & value.is_finite()))
}

impl Rates {
    /// A learning rate, without averaging over steps.
    #[must_use]
    pub fn plain(learning_rate: f32) -> Self {
        Self { learning_rate, average: 1.0, statistics: 1.0 }
    }

    /// How far the statistics move towards those of a part that is `share` of the batch, with `left` of the batch still
    /// to come. After the last part, they have moved by the full rate towards the mean over the parts.
    fn of_part(self, share: f32, left: f32) -> f32 {
        self.statistics * share / (1.0 - self.statistics * left)
    }

    /// The scalar inputs of the graphs by name.
    fn with(self, step: f32, share: f32) -> impl Fn(&str) -> f32 {
        move |name| match name {
            "step" => step,
            "share" => share,
            AVERAGE_RATE => self.average,
            STATISTICS_RATE => self.statistics,
            _ => self.learning_rate,
        }
    }
}

impl Parts {
    fn new(task: Task<'_>, engine: Engine) -> Result<Self> {
        let Task { spec, loss_weights, micro_batch_size, descent, .. } = task;
        let accumulate =
            |dialect: Dialect| graph::accumulate(dialect, task.precision(dialect, engine), spec, loss_weights);
        let update = |dialect: Dialect| graph::update(dialect, spec, descent);
        let statistics = spec.batch_norm.then_some(STATISTICS);
        let gives: Vec<_> = [GRADIENT].into_iter().chain(statistics).collect();
        let accumulate = Graph {
            sessions: Sessions::new(NAME, accumulate, engine)?,
            scalars: ["share"].into_iter().chain(statistics.map(|_| STATISTICS_RATE)).collect(),
            takes: [&[WEIGHTS], &gives[..]].concat(),
            gives,
        };
        let gives: Vec<_> = spec.state().into_iter().map(|(name, _)| name).filter(|&name| name != STATISTICS).collect();
        let update = Graph {
            sessions: Sessions::new(NAME, update, engine)?,
            scalars: ["step", "learning_rate"].into_iter().chain(statistics.map(|_| AVERAGE_RATE)).collect(),
            takes: [&[GRADIENT], &gives[..]].concat(),
            gives,
        };
        Ok(Self { size: micro_batch_size, accumulate, update })
    }

    /// A step in parts: sums their gradients, each weighted by its share of the photos, then applies the sum.
    fn run(
        &mut self,
        backend: Backend,
        spec: &Spec,
        batch: &Batch,
        rates: Rates,
        step: f32,
        state: &mut State,
    ) -> Result<StepFigures> {
        let mut total = StepFigures { loss: 0.0, pixel_accuracy: 0.0 };
        state.insert(GRADIENT, runtime::vector(vec![0.0; parameters::parameter_count(spec)])?);
        let mut left = batch.size;
        for part in batch.parts(self.size) {
            let share = part.size as f32 / batch.size as f32;
            left -= part.size;
            let of_part = Rates { statistics: rates.of_part(share, left as f32 / batch.size as f32), ..rates };
            let part_size = part.size;
            let inputs = photos_and_labels(spec, part)?;
            let found = self.accumulate.run(backend, part_size, inputs, of_part.with(step, share), state)?;
            total.loss += found.loss * share;
            total.pixel_accuracy += found.pixel_accuracy * share;
        }
        total.loss += self.update.run(backend, 0, Vec::new(), rates.with(step, 1.0), state)?.loss;
        state.remove(GRADIENT);
        Ok(total)
    }
}

/// Inputs by name.
type Inputs = Vec<(&'static str, DynValue)>;

fn photos_and_labels(spec: &Spec, Batch { photos, labels, size }: Batch) -> Result<Inputs> {
    let photos = Tensor::from_array(([size, spec.rows(), spec.columns(), 3], photos)).map_err(failed(NAME))?;
    let labels = Tensor::from_array(([size, spec.map_rows(), spec.map_columns()], labels)).map_err(failed(NAME))?;
    Ok(vec![("photos", photos.into_dyn()), ("labels", labels.into_dyn())])
}

impl Graph {
    /// Runs the graph and replaces the state vectors that it returns. A graph without a batch takes 0 photos; its accuracy
    /// is 0.
    fn run(
        &mut self,
        backend: Backend,
        size: usize,
        mut inputs: Inputs,
        scalar_of: impl Fn(&str) -> f32,
        state: &mut State,
    ) -> Result<StepFigures> {
        for name in &self.scalars {
            inputs.push((name, scalar(scalar_of(name))?));
        }
        let session = self.sessions.of(size)?;
        let binding = bind(session, backend, &inputs, &self.takes, state).map_err(failed(NAME))?;
        let mut outputs = session.run_binding(&binding).map_err(failed(NAME))?;
        for name in &self.gives {
            let new = outputs.remove(format!("new_{name}")).expect("the graph has this output");
            state.insert(name, new);
        }
        let told = |name: &str| outputs.get(name).map_or(Ok(0.0), number);
        Ok(StepFigures { loss: told("loss")?, pixel_accuracy: told("pixel_accuracy")? })
    }
}

/// Inputs from the host, and the state vectors `takes`; of the outputs, those of the state stay on the device.
fn bind(
    session: &Session,
    backend: Backend,
    inputs: &Inputs,
    takes: &[&'static str],
    state: &State,
) -> ort::Result<IoBinding> {
    let mut binding = session.create_binding()?;
    for (name, value) in inputs {
        binding.bind_input(*name, value)?;
    }
    let device = match backend.provider {
        Provider::Cpu => AllocationDevice::CPU,
        Provider::Cuda => AllocationDevice::CUDA,
    };
    let on_device = MemoryInfo::new(device, 0, AllocatorType::Device, MemoryType::Default)?;
    let on_host = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)?;
    for name in takes {
        binding.bind_input(*name, &state[name])?;
    }
    for output in session.outputs() {
        let is_state = output.name().starts_with("new_");
        binding.bind_output_to_device(output.name(), if is_state { &on_device } else { &on_host })?;
    }
    Ok(binding)
}

fn scalar(value: f32) -> Result<DynValue> {
    Ok(Tensor::from_array(((), vec![value])).map_err(failed(NAME))?.into_dyn())
}

fn number(value: &DynValue) -> Result<f32> {
    let (_, elements) = value.try_extract_tensor::<f32>().map_err(failed(NAME))?;
    Ok(elements[0])
}

fn to_host(value: &DynValue) -> Result<Vec<f32>> {
    let tensor = value.view().downcast::<ort::value::TensorValueType<f32>>().map_err(failed(NAME))?;
    if tensor.memory_info().is_cpu_accessible() {
        return Ok(tensor.extract_tensor().1.to_vec());
    }
    let tensor = tensor.to(AllocationDevice::CPU, 0).map_err(failed(NAME))?;
    Ok(tensor.extract_tensor().1.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_parts_are_averaged() {
        // Parts of 2, 2 and 1 photos with means of 1, 3 and 8: the mean over all photos is 3.2.
        for rate in [1.0, 0.25] {
            let rates = Rates { statistics: rate, ..Rates::plain(1e-3) };
            let parts = [(0.4, 0.6, 1.0), (0.4, 0.2, 3.0), (0.2, 0.0, 8.0)];
            let moved =
                parts.iter().fold(10.0, |at, (share, left, mean)| at + rates.of_part(*share, *left) * (mean - at));
            assert!((moved - (10.0 + rate * (3.2 - 10.0))).abs() < 1e-5, "{moved}");
        }
    }
}
