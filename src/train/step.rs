//! The training step in ONNX Runtime: weights and moments that come out of one step go into the next as they are, on the
//! device where they are.

use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session};
use ort::value::{DynValue, Tensor};

use super::checkpoint::State;
use super::examples::Batch;
use crate::error::{Error, Result};
use crate::graph::{Dialect, Spec, unet};
use crate::runtime::{self, Backend, Engine, Provider, failed};

/// Weights, first and second moment: as inputs and as outputs.
const STATE: [(&str, &str); 3] =
    [("weights", "new_weights"), ("first_moment", "new_first_moment"), ("second_moment", "new_second_moment")];
const NAME: &str = super::TRAIN_STEP_FILE;

/// The step and the state that it carries.
#[derive(Debug)]
pub struct TrainingStep {
    session: Session,
    backend: Backend,
    rows: usize,
    columns: usize,
    steps: u64,
    state: [DynValue; 3],
}

/// What a step tells.
#[derive(Debug, Clone, Copy)]
pub struct Learnt {
    /// Mean loss of the batch before the step.
    pub loss: f32,
    /// Share of pixels that were right, 0 to 1.
    pub pixel_accuracy: f32,
}

impl TrainingStep {
    /// Makes the session and starts from `weights`, with moments of zero.
    ///
    /// # Errors
    /// As [`runtime::session`].
    pub fn new(model: impl Fn(Dialect) -> Vec<u8>, spec: &Spec, weights: &[f32], engine: Engine) -> Result<Self> {
        let (session, backend) = runtime::session(NAME, model, engine)?;
        let zeros = vec![0.0; unet::PARAMETER_COUNT];
        let state = [flat(weights.to_vec())?, flat(zeros.clone())?, flat(zeros)?];
        Ok(Self { session, backend, rows: spec.rows(), columns: spec.columns(), steps: 0, state })
    }

    /// What really runs.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Number of steps done.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.steps
    }

    /// Does one step.
    ///
    /// # Errors
    /// What ONNX Runtime answers, as when the memory does not suffice.
    pub fn run(&mut self, batch: Batch, learning_rate: f32) -> Result<Learnt> {
        self.steps += 1;
        let photos = Tensor::from_array(([batch.size, self.rows, self.columns, 3], batch.photos));
        let labels = Tensor::from_array(([batch.size, self.rows, self.columns], batch.labels));
        let inputs = [
            ("photos", photos.map_err(failed(NAME))?.into_dyn()),
            ("labels", labels.map_err(failed(NAME))?.into_dyn()),
            ("step", scalar(self.steps as f32)?),
            ("learning_rate", scalar(learning_rate)?),
        ];
        let binding = self.bind(&inputs).map_err(failed(NAME))?;
        let mut outputs = self.session.run_binding(&binding).map_err(failed(NAME))?;
        let learnt = Learnt { loss: number(&outputs["loss"])?, pixel_accuracy: number(&outputs["pixel_accuracy"])? };
        for (value, (_, name)) in self.state.iter_mut().zip(STATE) {
            *value = outputs.remove(name).expect("the graph has this output");
        }
        Ok(learnt)
    }

    fn bind(&self, inputs: &[(&str, DynValue)]) -> ort::Result<IoBinding> {
        let mut binding = self.session.create_binding()?;
        for (name, value) in inputs {
            binding.bind_input(*name, value)?;
        }
        let device = match self.backend.provider {
            Provider::Cpu => AllocationDevice::CPU,
            Provider::Cuda => AllocationDevice::CUDA,
        };
        let on_device = MemoryInfo::new(device, 0, AllocatorType::Device, MemoryType::Default)?;
        let on_host = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)?;
        for (value, (input, output)) in self.state.iter().zip(STATE) {
            binding.bind_input(input, value)?;
            binding.bind_output_to_device(output, &on_device)?;
        }
        binding.bind_output_to_device("loss", &on_host)?;
        binding.bind_output_to_device("pixel_accuracy", &on_host)?;
        Ok(binding)
    }

    /// The weights where they are.
    #[must_use]
    pub fn weights_value(&self) -> &DynValue {
        &self.state[0]
    }

    /// The weights on the host, flat.
    ///
    /// # Errors
    /// What ONNX Runtime answers.
    pub fn weights(&self) -> Result<Vec<f32>> {
        to_host(&self.state[0])
    }

    /// Whether all weights are finite, as far as that can be told where they are: on another device they are taken for it.
    /// Kernels that take the larger of two numbers lose what is none on its way to the loss.
    ///
    /// # Errors
    /// What ONNX Runtime answers.
    pub fn is_finite(&self) -> Result<bool> {
        let weights = self.state[0].view().downcast::<ort::value::TensorValueType<f32>>().map_err(failed(NAME))?;
        Ok(!weights.memory_info().is_cpu_accessible() || are_finite(weights.extract_tensor().1))
    }

    /// What goes into the next step, on the host.
    ///
    /// # Errors
    /// What ONNX Runtime answers.
    pub fn state(&self) -> Result<State> {
        let named = self.state.iter().zip(STATE);
        named.map(|(value, (name, _))| Ok((name.to_owned(), to_host(value)?))).collect()
    }

    /// Goes on after `steps` steps from what [`TrainingStep::state`] gave then.
    ///
    /// # Errors
    /// [`Error::Runtime`] naming a vector that is missing or of another length.
    pub fn restore(&mut self, steps: u64, state: &State) -> Result<()> {
        for (value, (name, _)) in self.state.iter_mut().zip(STATE) {
            let given = state.iter().find(|(of, values)| of == name && values.len() == unet::PARAMETER_COUNT);
            let (_, values) = given.ok_or_else(|| Error::runtime(NAME, format!("no '{name}' to go on from")))?;
            *value = flat(values.clone())?;
        }
        self.steps = steps;
        Ok(())
    }
}

/// Whether all are finite.
pub(crate) fn are_finite(values: &[f32]) -> bool {
    // Without a way out within a chunk, so that it is done by vectors.
    values.chunks(256).all(|chunk| chunk.iter().fold(true, |finite, value| finite & value.is_finite()))
}

/// A flat f32 vector as a value.
pub(crate) fn flat(values: Vec<f32>) -> Result<DynValue> {
    Ok(Tensor::from_array(([values.len()], values)).map_err(failed(NAME))?.into_dyn())
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
