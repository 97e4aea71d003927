//! Builds an ONNX graph operator by operator, and derives the gradients by walking back over what was built.
//!
//! All maps of the network are `[batch, channels, height, width]`, f32 or, for [half precision](Precision::F16), f16.
//! Sums over many pixels are always f32, and so are weights and their gradients. Only the operators that the network
//! needs are differentiable: each of them records a step on the tape, and [`Builder::gradients`] walks the tape
//! backwards (reverse-mode differentiation; Griewank and Walther, "Evaluating Derivatives", 2008).

use std::collections::{HashMap, HashSet};

use prost::Message;

use super::onnx::{
    Attribute, Dimension, FLOAT, FLOAT16, Graph, INT8, INT32, INT64, IR_VERSION, Model, Node, OPSET_VERSION,
    OperatorSetId, Shape, Size, StringStringEntry, Tensor, TensorType, Type, ValueInfo,
};
use super::spec::{Dialect, Precision};

/// Fewest pixels of a part of the sum that a kernel's gradient is.
const PART_PIXELS: usize = 2048;

/// In f16 a kernel's gradient is computed times this: the sum over all pixels could be beyond its range.
const HALF_SCALE: f32 = 1.0 / 256.0;

/// Name of the domain of this program's own operators.
pub const DOMAIN: &str = "lookbook";

/// A value of the graph, identified by its name in the file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Value(String);

impl Value {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// A dimension of an input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    /// The same in every run.
    Fixed(usize),
    /// The number of photos, chosen by each run.
    Batch,
}

/// A differentiable step on the tape.
#[derive(Debug, Clone)]
enum Step {
    /// Stride 1, 'same' padding; `weight` is `[out, in, kernel, kernel]`.
    Convolution { x: Value, weight: Value, bias: Option<Value>, y: Value, extent: Extent },
    /// `y` = `normal` x scale + bias, where `normal` is `x` minus its mean, times `inverse`, the reciprocal of its
    /// standard deviation.
    BatchNorm { x: Value, normal: Value, inverse: Value, scale: Value, bias: Value, y: Value },
    /// The same by an operator for CUDA.
    CudaBatchNorm { x: Value, mean: Value, inverse: Value, scale: Value, bias: Value, y: Value, epsilon: f32 },
    /// max(x, 0).
    Relu { x: Value, y: Value },
    /// 2x2 windows, stride 2.
    MaxPool { x: Value, y: Value, channels: usize },
    /// Transposed convolution, 2x2 kernel, stride 2; `weight` is `[in, out, 2, 2]`.
    UpConvolution { x: Value, weight: Value, bias: Value, y: Value, out_channels: usize },
    /// Each channel by itself: `weight` is `[channels, 1, kernel, kernel]`; rows and columns of `x` are multiples of the
    /// stride.
    DepthwiseConvolution { x: Value, weight: Value, bias: Option<Value>, y: Value, window: Window, channels: usize },
    /// min(max(x, 0), 6).
    Relu6 { x: Value, y: Value },
    /// a + b.
    Sum { a: Value, b: Value, y: Value },
    /// Along the channels.
    Concat { a: Value, b: Value, y: Value, channels: [usize; 2] },
}

/// The dimensions of a convolution with stride 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Side of the kernel.
    pub kernel: usize,
    /// Of the input and of the output.
    pub channels: [usize; 2],
    /// Of each map.
    pub pixels: usize,
}

/// The windows of a convolution over maps whose sides are multiples of the stride.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Side of the kernel.
    pub kernel: usize,
    /// Distance between windows, 1 or 2.
    pub stride: usize,
    /// Rows of zeros above the maps, and columns to their left.
    pub before: usize,
}

impl Window {
    /// Stride 1, with as many windows as pixels.
    fn same(kernel: usize) -> Self {
        Self { kernel, stride: 1, before: kernel / 2 }
    }

    /// The same windows, filled up so that there are as many zeros before the maps as after.
    fn even(self) -> Self {
        let most = self.before.max(self.after());
        Self { kernel: self.kernel + self.before.abs_diff(self.after()), before: most, ..self }
    }

    /// Rows of zeros below the maps, and columns to their right: as few as make one window for each `stride` pixels.
    fn after(self) -> usize {
        self.kernel - self.stride - self.before
    }

    fn attributes(self, channels: usize) -> Vec<Attribute> {
        let [kernel, stride, before, after] = [self.kernel, self.stride, self.before, self.after()].map(|it| it as i64);
        vec![
            Attribute::ints("kernel_shape", &[kernel; 2]),
            Attribute::ints("pads", &[before, before, after, after]),
            Attribute::ints("strides", &[stride; 2]),
            Attribute::int("group", channels as i64),
        ]
    }
}

/// A graph under construction.
#[derive(Debug, Default)]
pub struct Builder {
    graph: Graph,
    constants: HashMap<(i32, Vec<i64>, Vec<u8>), Value>,
    names: HashMap<String, usize>,
    tape: Vec<Step>,
    scope: String,
    /// Whether maps are f16.
    half: bool,
    /// Whether there are the operators for CUDA.
    cuda: bool,
}

impl Builder {
    /// A graph in a dialect, whose maps have the given precision.
    #[must_use]
    pub fn new(dialect: Dialect, precision: Precision) -> Self {
        Self { half: precision == Precision::F16, cuda: dialect == Dialect::Cuda, ..Self::default() }
    }

    /// Whether maps are f16.
    #[must_use]
    pub fn is_half(&self) -> bool {
        self.half
    }

    /// Casts f32 to the element type of maps.
    pub fn narrow(&mut self, x: &Value) -> Value {
        if self.half { self.cast(x, FLOAT16) } else { x.clone() }
    }

    /// Casts maps to f32.
    pub fn wide(&mut self, x: &Value) -> Value {
        if self.half { self.cast(x, FLOAT) } else { x.clone() }
    }

    /// f32 from the native operators' bf16, which is handed on as u16: the upper half of an f32's bits.
    pub fn wide_bf16(&mut self, x: &Value) -> Value {
        self.native("Bf16Wide", &[x], vec![], 1).remove(0)
    }

    /// Declares an input.
    pub fn input(&mut self, name: &str, elem_type: i32, dims: &[Dim]) -> Value {
        self.graph.input.push(value_info(name, elem_type, dims));
        Value(name.to_owned())
    }

    /// Declares `value` as the output `name`.
    pub fn output(&mut self, name: &str, value: &Value, elem_type: i32, dims: &[Dim]) {
        let node = Node {
            input: vec![value.0.clone()],
            output: vec![name.to_owned()],
            name: format!("output/{name}"),
            op_type: "Identity".to_owned(),
            attribute: Vec::new(),
            domain: String::new(),
        };
        self.graph.node.push(node);
        self.graph.output.push(value_info(name, elem_type, dims));
    }

    /// Prefixes the names of the nodes that follow with `scope`.
    pub fn scope(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
    }

    /// A named f32 constant.
    pub fn weight(&mut self, name: &str, dims: &[usize], elements: &[f32]) -> Value {
        self.graph.initializer.push(Tensor {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: FLOAT,
            name: name.to_owned(),
            raw_data: elements.iter().flat_map(|element| element.to_le_bytes()).collect(),
        });
        Value(name.to_owned())
    }

    /// An f32 scalar.
    pub fn scalar(&mut self, value: f32) -> Value {
        self.constant(FLOAT, vec![], value.to_le_bytes().to_vec())
    }

    /// An f32 vector.
    pub fn floats(&mut self, values: &[f32]) -> Value {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(FLOAT, vec![values.len() as i64], bytes)
    }

    /// An f32 vector of `len` times the same value.
    pub fn filled(&mut self, len: usize, value: f32) -> Value {
        let (value, len) = (self.floats(&[value]), self.integers(&[len as i64]));
        self.node("Expand", &[&value, &len], vec![])
    }

    /// An i64 vector: shapes, axes, bounds.
    pub fn integers(&mut self, values: &[i64]) -> Value {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(INT64, vec![values.len() as i64], bytes)
    }

    /// An i32 tensor of the given shape.
    pub fn integers_32(&mut self, dims: &[i64], values: &[i32]) -> Value {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(INT32, dims.to_vec(), bytes)
    }

    /// An i8 matrix.
    pub fn integers_8(&mut self, dims: [usize; 2], values: &[i8]) -> Value {
        let bytes = values.iter().map(|it| it.cast_unsigned()).collect();
        self.constant(INT8, dims.map(|dim| dim as i64).to_vec(), bytes)
    }

    fn constant(&mut self, data_type: i32, dims: Vec<i64>, raw_data: Vec<u8>) -> Value {
        let key = (data_type, dims, raw_data);
        if let Some(value) = self.constants.get(&key) {
            return value.clone();
        }
        let value = Value(format!("constant/{}", self.constants.len()));
        let (data_type, dims, raw_data) = key.clone();
        self.graph.initializer.push(Tensor { dims, data_type, name: value.0.clone(), raw_data });
        self.constants.insert(key, value.clone());
        value
    }

    /// Adds any ONNX operator with one output.
    pub fn node(&mut self, op_type: &str, inputs: &[&Value], attributes: Vec<Attribute>) -> Value {
        self.nodes(op_type, inputs, attributes, 1).remove(0)
    }

    /// Adds an operator of [`lookbook_cuda`] for maps of their element type.
    fn on_cuda(&mut self, op_type: &str, inputs: &[&Value], attributes: Vec<Attribute>, outputs: usize) -> Vec<Value> {
        let suffix = if self.half { "F16" } else { "" };
        self.native(&format!("{op_type}{suffix}"), inputs, attributes, outputs)
    }

    /// Adds an operator of [this program's domain](DOMAIN) with any number of outputs.
    pub fn native(
        &mut self,
        op_type: &str,
        inputs: &[&Value],
        attributes: Vec<Attribute>,
        outputs: usize,
    ) -> Vec<Value> {
        let values = self.nodes(op_type, inputs, attributes, outputs);
        let node = self.graph.node.last_mut().expect("it was just added");
        DOMAIN.clone_into(&mut node.domain);
        values
    }

    fn nodes(&mut self, op_type: &str, inputs: &[&Value], attributes: Vec<Attribute>, outputs: usize) -> Vec<Value> {
        let base = format!("{}/{op_type}", self.scope);
        let count = self.names.entry(base.clone()).or_default();
        let name = format!("{base}_{count}");
        *count += 1;
        let values: Vec<Value> = (0..outputs).map(|index| Value(format!("{name}:{index}"))).collect();
        self.graph.node.push(Node {
            input: inputs.iter().map(|value| value.0.clone()).collect(),
            output: values.iter().map(|value| value.0.clone()).collect(),
            name,
            op_type: op_type.to_owned(),
            attribute: attributes,
            domain: String::new(),
        });
        values
    }

    /// `x` in another shape; 0 keeps a dimension, -1 is inferred from the rest.
    pub fn reshape(&mut self, x: &Value, shape: &[i64]) -> Value {
        let shape = self.integers(shape);
        self.node("Reshape", &[x, &shape], vec![])
    }

    /// `x` with its axes in another order.
    pub fn transpose(&mut self, x: &Value, order: &[i64]) -> Value {
        self.node("Transpose", &[x], vec![Attribute::ints("perm", order)])
    }

    /// `starts..ends` of `axes`, with ONNX's indices (negative ones count from the end).
    pub fn slice(&mut self, x: &Value, starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]) -> Value {
        let bounds = [starts, ends, axes, steps].map(|it| self.integers(it));
        self.node("Slice", &[x, &bounds[0], &bounds[1], &bounds[2], &bounds[3]], vec![])
    }

    /// Reduces `axes` by "`ReduceSum`", "`ReduceMean`" or "`ReduceMax`"; `keep` leaves them with size 1.
    pub fn reduce(&mut self, op_type: &str, x: &Value, axes: &[i64], keep: bool) -> Value {
        let axes = self.integers(axes);
        self.node(op_type, &[x, &axes], vec![Attribute::int("keepdims", i64::from(keep))])
    }

    /// Splits along `axis` into parts of the given sizes.
    pub fn split(&mut self, x: &Value, sizes: &[usize], axis: i64) -> Vec<Value> {
        let parts = self.integers(&sizes.iter().map(|&size| size as i64).collect::<Vec<_>>());
        self.nodes("Split", &[x, &parts], vec![Attribute::int("axis", axis)], sizes.len())
    }

    /// Concatenates along `axis`.
    pub fn concat(&mut self, values: &[&Value], axis: i64) -> Value {
        self.node("Concat", values, vec![Attribute::int("axis", axis)])
    }

    /// Casts to another element type.
    pub fn cast(&mut self, x: &Value, elem_type: i32) -> Value {
        self.node("Cast", &[x], vec![Attribute::int("to", i64::from(elem_type))])
    }

    /// Convolution with stride 1 and 'same' zero padding: `weight` `[out, in, kernel, kernel]`, `bias` `[out]`.
    pub fn convolution(&mut self, x: &Value, weight: &Value, bias: Option<&Value>, extent: Extent) -> Value {
        let parameters: Vec<Value> = [weight].into_iter().chain(bias).map(|it| self.narrow(it)).collect();
        let inputs: Vec<&Value> = [x].into_iter().chain(&parameters).collect();
        let y = self.node("Conv", &inputs, same(extent.kernel));
        let (x, weight, bias) = (x.clone(), weight.clone(), bias.cloned());
        self.tape.push(Step::Convolution { x, weight, bias, y: y.clone(), extent });
        y
    }

    /// Depthwise convolution: `weight` `[channels, 1, kernel, kernel]`, `bias` `[channels]`.
    pub fn depthwise_convolution(
        &mut self,
        x: &Value,
        weight: &Value,
        bias: Option<&Value>,
        window: Window,
        channels: usize,
    ) -> Value {
        let (filled, even) = self.evenly_padded(weight, window);
        let parameters: Vec<Value> = [&filled].into_iter().chain(bias).map(|it| self.narrow(it)).collect();
        let inputs: Vec<&Value> = [x].into_iter().chain(&parameters).collect();
        let y = self.node("Conv", &inputs, even.attributes(channels));
        let (x, weight, bias) = (x.clone(), weight.clone(), bias.cloned());
        self.tape.push(Step::DepthwiseConvolution { x, weight, bias, y: y.clone(), window, channels });
        y
    }

    /// The same depthwise convolution with as many zeros before the maps as after: its kernel is filled up with zeros. CUDA
    /// has no others.
    fn evenly_padded(&mut self, weight: &Value, window: Window) -> (Value, Window) {
        let (before, after) = (window.before, window.after());
        if before == after {
            return (weight.clone(), window);
        }
        let even = window.even();
        let [kernel, wider, front, behind] =
            [window.kernel, even.kernel, even.before - before, even.before - after].map(|it| it as i64);
        // By way of three axes: ONNX Runtime would take a padding of four for one of the convolution's maps.
        let of_channels = self.reshape(weight, &[-1, kernel, kernel]);
        let pads = self.integers(&[0, front, front, 0, behind, behind]);
        let filled = self.node("Pad", &[&of_channels, &pads], vec![]);
        (self.reshape(&filled, &[-1, 1, wider, wider]), even)
    }

    /// Normalises the maps of each channel to mean 0 and variance 1 over the batch and all pixels, then multiplies by
    /// `scale` and adds `bias`, `[channels]` each. Returns the maps, and their means and variances, one number for each
    /// channel.
    pub fn batch_norm(&mut self, x: &Value, [scale, bias]: [&Value; 2], epsilon: f32) -> (Value, [Value; 2]) {
        if self.cuda {
            return self.cuda_batch_norm(x, [scale, bias], epsilon);
        }
        let wide = self.wide(x);
        let mean = self.channel_mean(&wide);
        let centred = self.node("Sub", &[&wide, &mean], vec![]);
        let square = self.node("Mul", &[&centred, &centred], vec![]);
        let variance = self.channel_mean(&square);
        let epsilon = self.scalar(epsilon);
        let above_zero = self.node("Add", &[&variance, &epsilon], vec![]);
        let deviation = self.node("Sqrt", &[&above_zero], vec![]);
        let inverse = self.node("Reciprocal", &[&deviation], vec![]);
        let normal = self.node("Mul", &[&centred, &inverse], vec![]);
        let [factor, summand] = [scale, bias].map(|it| self.reshape(it, &[1, -1, 1, 1]));
        let scaled = self.node("Mul", &[&normal, &factor], vec![]);
        let y = self.node("Add", &[&scaled, &summand], vec![]);
        let y = self.narrow(&y);
        let (x, scale, bias) = (x.clone(), scale.clone(), bias.clone());
        self.tape.push(Step::BatchNorm { x, normal, inverse, scale, bias, y: y.clone() });
        (y, [mean, variance])
    }

    fn cuda_batch_norm(&mut self, x: &Value, [scale, bias]: [&Value; 2], epsilon: f32) -> (Value, [Value; 2]) {
        let attributes = vec![Attribute::float("epsilon", epsilon)];
        let found = self.on_cuda("BatchNorm", &[x, scale, bias], attributes, 3);
        let [y, mean, inverse] = <[Value; 3]>::try_from(found).expect("there are 3");
        let square = self.node("Mul", &[&inverse, &inverse], vec![]);
        let above_zero = self.node("Reciprocal", &[&square], vec![]);
        let summand = self.scalar(epsilon);
        let variance = self.node("Sub", &[&above_zero, &summand], vec![]);
        let (x, scale, bias) = (x.clone(), scale.clone(), bias.clone());
        self.tape.push(Step::CudaBatchNorm { x, mean: mean.clone(), inverse, scale, bias, y: y.clone(), epsilon });
        (y, [mean, variance])
    }

    /// The mean of each channel, `[1, channels, 1, 1]`: first over lines, then over maps, because single precision
    /// loses too much in one sum over all pixels.
    fn channel_mean(&mut self, x: &Value) -> Value {
        let of_lines = self.reduce("ReduceMean", x, &[3], true);
        let of_maps = self.reduce("ReduceMean", &of_lines, &[2], true);
        self.reduce("ReduceMean", &of_maps, &[0], true)
    }

    /// max(x, 0).
    pub fn relu(&mut self, x: &Value) -> Value {
        let y = self.node("Relu", &[x], vec![]);
        self.tape.push(Step::Relu { x: x.clone(), y: y.clone() });
        y
    }

    /// min(max(x, 0), 6).
    pub fn relu6(&mut self, x: &Value) -> Value {
        let [zero, six] = [0.0, 6.0].map(|it| self.map_scalar(it));
        let y = self.node("Clip", &[x, &zero, &six], vec![]);
        self.tape.push(Step::Relu6 { x: x.clone(), y: y.clone() });
        y
    }

    /// a + b.
    pub fn sum(&mut self, a: &Value, b: &Value) -> Value {
        let y = self.node("Add", &[a, b], vec![]);
        self.tape.push(Step::Sum { a: a.clone(), b: b.clone(), y: y.clone() });
        y
    }

    /// Maximum of 2x2 windows, stride 2.
    pub fn max_pool(&mut self, x: &Value, channels: usize) -> Value {
        let y = self.node("MaxPool", &[x], vec![Attribute::ints("kernel_shape", &[2, 2]), strides_2()]);
        self.tape.push(Step::MaxPool { x: x.clone(), y: y.clone(), channels });
        y
    }

    /// Transposed convolution, 2x2 kernel, stride 2: `weight` `[in, out_channels, 2, 2]`.
    pub fn up_convolution(&mut self, x: &Value, weight: &Value, bias: &Value, out_channels: usize) -> Value {
        let attributes = vec![Attribute::ints("kernel_shape", &[2, 2]), strides_2()];
        let parameters = [weight, bias].map(|it| self.narrow(it));
        let y = self.node("ConvTranspose", &[x, &parameters[0], &parameters[1]], attributes);
        let (x, weight, bias) = (x.clone(), weight.clone(), bias.clone());
        self.tape.push(Step::UpConvolution { x, weight, bias, y: y.clone(), out_channels });
        y
    }

    /// The channels of `a`, then those of `b`.
    pub fn concat_channels(&mut self, a: &Value, b: &Value, channels: [usize; 2]) -> Value {
        let y = self.concat(&[a, b], 1);
        self.tape.push(Step::Concat { a: a.clone(), b: b.clone(), y: y.clone(), channels });
        y
    }

    /// The gradients of a loss with respect to `weights`, from its gradients with respect to other values, `seeds`.
    ///
    /// The loss is assumed to be a mean over the batch: sums over the batch are divided by its size. Weights that the
    /// output does not depend on have no entry.
    pub fn gradients(&mut self, seeds: HashMap<Value, Value>, weights: &[Value]) -> HashMap<Value, Value> {
        let needed = self.values_that_depend_on(weights);
        let mut gradients = Gradients { of: seeds, needed };
        for step in std::mem::take(&mut self.tape).iter().rev() {
            self.step_back(step, &mut gradients);
        }
        gradients.of.retain(|value, _| weights.contains(value));
        gradients.of
    }

    fn values_that_depend_on(&self, weights: &[Value]) -> HashSet<Value> {
        let mut needed: HashSet<Value> = weights.iter().cloned().collect();
        for step in &self.tape {
            let (inputs, y) = match step {
                Step::Convolution { x, weight, bias, y, .. }
                | Step::DepthwiseConvolution { x, weight, bias, y, .. } => {
                    (bias.iter().chain([x, weight]).collect::<Vec<_>>(), y)
                }
                Step::UpConvolution { x, weight, bias, y, .. } => (vec![x, weight, bias], y),
                Step::BatchNorm { x, scale, bias, y, .. } | Step::CudaBatchNorm { x, scale, bias, y, .. } => {
                    (vec![x, scale, bias], y)
                }
                Step::Relu { x, y } | Step::Relu6 { x, y } | Step::MaxPool { x, y, .. } => (vec![x], y),
                Step::Sum { a, b, y } | Step::Concat { a, b, y, .. } => (vec![a, b], y),
            };
            if inputs.into_iter().any(|input| needed.contains(input)) {
                needed.insert(y.clone());
            }
        }
        needed
    }

    fn step_back(&mut self, step: &Step, gradients: &mut Gradients) {
        match step {
            Step::Convolution { x, weight, bias, y, extent } => {
                let Some(dy) = gradients.of.remove(y) else { return };
                self.scope(format!("gradient/{}", weight.name()));
                let wide = self.wide(&dy);
                if let Some(bias) = bias {
                    gradients.add(self, bias, |it| it.bias_gradient(&wide));
                }
                gradients.add(self, weight, |it| it.kernel_gradient(x, [&dy, &wide], *extent));
                gradients.add(self, x, |it| it.convolution_input_gradient(weight, &dy, extent.kernel));
            }
            Step::BatchNorm { x, normal, inverse, scale, bias, y } => {
                let Some(dy) = gradients.of.remove(y) else { return };
                self.scope(format!("gradient/{}", scale.name()));
                let dy = self.wide(&dy);
                let along = self.node("Mul", &[&dy, normal], vec![]);
                gradients.add(self, bias, |it| it.bias_gradient(&dy));
                gradients.add(self, scale, |it| it.bias_gradient(&along));
                gradients.add(self, x, |it| it.batch_norm_gradient([&dy, &along], [normal, inverse, scale]));
            }
            Step::CudaBatchNorm { x, mean, inverse, scale, bias, y, epsilon } => {
                let Some(dy) = gradients.of.remove(y) else { return };
                self.scope(format!("gradient/{}", scale.name()));
                let (inputs, attributes) =
                    ([x, &dy, scale, mean, inverse], vec![Attribute::float("epsilon", *epsilon)]);
                let found = self.on_cuda("BatchNormGradient", &inputs, attributes, 3);
                for (value, gradient) in [x, scale, bias].into_iter().zip(found) {
                    gradients.add(self, value, |_| gradient);
                }
            }
            Step::Relu { x, y } => {
                let Some(dy) = gradients.of.remove(y) else { return };
                gradients.add(self, x, |it| it.relu_gradient(y, &dy));
            }
            Step::Relu6 { x, y } => {
                let Some(dy) = gradients.of.remove(y) else { return };
                gradients.add(self, x, |it| it.relu6_gradient([x, y], &dy));
            }
            Step::DepthwiseConvolution { x, weight, bias, y, window, channels } => {
                let Some(dy) = gradients.of.remove(y) else { return };
                self.scope(format!("gradient/{}", weight.name()));
                let wide = self.wide(&dy);
                if let Some(bias) = bias {
                    gradients.add(self, bias, |it| it.bias_gradient(&wide));
                }
                gradients.add(self, weight, |it| it.depthwise_kernel_gradient(x, [&dy, &wide], *window, *channels));
                gradients.add(self, x, |it| it.depthwise_input_gradient(weight, &dy, *window, *channels));
            }
            Step::Sum { a, b, y } => {
                let Some(dy) = gradients.of.remove(y) else { return };
                gradients.add(self, a, |_| dy.clone());
                gradients.add(self, b, |_| dy.clone());
            }
            Step::MaxPool { x, y, channels } => {
                let Some(dy) = gradients.of.remove(y) else { return };
                gradients.add(self, x, |it| it.max_pool_gradient(x, y, &dy, *channels));
            }
            Step::UpConvolution { x, weight, bias, y, out_channels } => {
                let Some(dy) = gradients.of.remove(y) else { return };
                self.scope(format!("gradient/{}", weight.name()));
                let wide = self.wide(&dy);
                gradients.add(self, bias, |it| it.bias_gradient(&wide));
                gradients.add(self, weight, |it| it.up_kernel_gradient(x, [&dy, &wide], *out_channels));
                gradients.add(self, x, |it| {
                    let weight = it.narrow(weight);
                    it.node("Conv", &[&dy, &weight], vec![Attribute::ints("kernel_shape", &[2, 2]), strides_2()])
                });
            }
            Step::Concat { a, b, y, channels } => {
                let Some(dy) = gradients.of.remove(y) else { return };
                let parts = self.split(&dy, channels, 1);
                gradients.add(self, a, |_| parts[0].clone());
                gradients.add(self, b, |_| parts[1].clone());
            }
        }
    }

    /// The gradient that remains after a normalisation: its mean and its component along the maps are subtracted, as
    /// they change neither mean nor variance.
    fn batch_norm_gradient(&mut self, [dy, along]: [&Value; 2], [normal, inverse, scale]: [&Value; 3]) -> Value {
        let mean = self.channel_mean(dy);
        let slope = self.channel_mean(along);
        let projection = self.node("Mul", &[normal, &slope], vec![]);
        let centred = self.node("Sub", &[dy, &mean], vec![]);
        let rest = self.node("Sub", &[&centred, &projection], vec![]);
        let factor = self.reshape(scale, &[1, -1, 1, 1]);
        let factor = self.node("Mul", &[&factor, inverse], vec![]);
        let dx = self.node("Mul", &[&rest, &factor], vec![]);
        self.narrow(&dx)
    }

    /// The gradient of the kernel of a convolution, mean over the batch: by an operator for CUDA, which has as many zeros
    /// before the maps as after.
    fn cuda_kernel_gradient(&mut self, [x, dy]: [&Value; 2], window: Window, groups: usize) -> Value {
        let even = window.even();
        let [kernel, stride, pad, groups] = [even.kernel, even.stride, even.before, groups].map(|it| it as i64);
        let numbers = [("kernel", kernel), ("stride", stride), ("pad", pad), ("groups", groups)];
        let mut attributes: Vec<Attribute> = numbers.map(|(name, value)| Attribute::int(name, value)).to_vec();
        attributes.extend(self.half.then(|| Attribute::float("scale", HALF_SCALE)));
        let mut taps = self.on_cuda("KernelGradient", &[x, dy], attributes, 1).remove(0);
        if even != window {
            let first = (even.before - window.before) as i64;
            let last = first + window.kernel as i64;
            taps = self.slice(&taps, &[first; 2], &[last; 2], &[2, 3], &[1, 1]);
        }
        if !self.half {
            return taps;
        }
        let (taps, scale) = (self.wide(&taps), self.scalar(1.0 / HALF_SCALE));
        self.node("Mul", &[&taps, &scale], vec![])
    }

    /// Sum over the pixels, mean over the batch: `[channels]`.
    fn bias_gradient(&mut self, dy: &Value) -> Value {
        let per_photo = self.reduce("ReduceSum", dy, &[2, 3], false);
        self.reduce("ReduceMean", &per_photo, &[0], false)
    }

    /// Each tap of the kernel is a product of the input, shifted by the tap's column, with the output gradient, shifted
    /// by minus its row. All shifted copies of one are a matrix, so that one product gives all taps. The sum over pixels is
    /// done in parts: the matrices are so small that a GPU would otherwise have work for few of its processors.
    fn kernel_gradient(&mut self, x: &Value, [dy, wide]: [&Value; 2], extent: Extent) -> Value {
        let Extent { kernel, channels: [inputs, outputs], pixels } = extent;
        if self.cuda {
            return self.cuda_kernel_gradient([x, dy], Window::same(kernel), 1);
        }
        let dy = wide;
        if kernel == 1 {
            let x = self.wide(x);
            let taps = self.product_of_maps(dy, &x);
            return self.reshape(&taps, &[outputs as i64, inputs as i64, 1, 1]);
        }
        let [x, dy] = [x, dy].map(|it| self.transpose(it, &[1, 0, 2, 3]));
        let x = self.wide(&x);
        let reach = kernel as i64 / 2;
        let columns: Vec<Value> = (-reach..=reach).map(|by| self.moved(&x, [0, by])).collect();
        let rows: Vec<Value> = (-reach..=reach).map(|by| self.moved(&dy, [-by, 0])).collect();
        let part = part_len(pixels);
        let [columns, rows] = [(columns, inputs), (rows, outputs)].map(|(copies, channels)| {
            let all = self.concat(&copies.iter().collect::<Vec<_>>(), 0);
            self.reshape(&all, &[(kernel * channels) as i64, -1, part as i64])
        });
        let rows = self.transpose(&rows, &[1, 0, 2]);
        let columns = self.transpose(&columns, &[1, 2, 0]);
        let product = self.node("MatMul", &[&rows, &columns], vec![]);
        let taps = self.reduce("ReduceMean", &product, &[0], false);
        let parts = self.scalar((pixels / part) as f32);
        let taps = self.node("Mul", &[&taps, &parts], vec![]);
        let [kernel, inputs, outputs] = [kernel, inputs, outputs].map(|it| it as i64);
        let taps = self.reshape(&taps, &[kernel, outputs, kernel, inputs]);
        self.transpose(&taps, &[1, 3, 0, 2])
    }

    /// For each pixel, the value `rows` below and `columns` to the right of it, zero beyond the edges.
    fn moved(&mut self, x: &Value, [rows, columns]: [i64; 2]) -> Value {
        if [rows, columns] == [0, 0] {
            return x.clone();
        }
        let pads = self.integers(&[0, 0, -rows, -columns, 0, 0, rows, columns]);
        self.node("Pad", &[x, &pads], vec![])
    }

    /// A convolution of the output gradient with the kernel rotated by 180 degrees, inputs and outputs exchanged.
    fn convolution_input_gradient(&mut self, weight: &Value, dy: &Value, kernel: usize) -> Value {
        let weight = self.narrow(weight);
        let mut turned = self.transpose(&weight, &[1, 0, 2, 3]);
        if kernel > 1 {
            turned = self.slice(&turned, &[-1, -1], &[i64::MIN, i64::MIN], &[2, 3], &[-1, -1]);
        }
        self.node("Conv", &[dy, &turned], same(kernel))
    }

    /// Each tap of a channel's kernel is the sum over pixels of the input, shifted by the tap, times the output gradient.
    fn depthwise_kernel_gradient(
        &mut self,
        x: &Value,
        [dy, wide]: [&Value; 2],
        window: Window,
        channels: usize,
    ) -> Value {
        if self.cuda {
            return self.cuda_kernel_gradient([x, dy], window, channels);
        }
        let dy = wide;
        let [kernel, stride, before, after] =
            [window.kernel, window.stride, window.before, window.after()].map(|it| it as i64);
        let x = self.wide(x);
        let pads = self.integers(&[0, 0, before, before, 0, 0, after, after]);
        let padded = self.node("Pad", &[&x, &pads], vec![]);
        // The last window begins `kernel` pixels before the end.
        let end = |tap: i64| if tap + 1 == kernel { i64::MAX } else { tap + 1 - kernel };
        let mut taps = Vec::new();
        for row in 0..kernel {
            for column in 0..kernel {
                let seen = self.slice(&padded, &[row, column], &[end(row), end(column)], &[2, 3], &[stride, stride]);
                let product = self.node("Mul", &[&seen, dy], vec![]);
                let sum = self.bias_gradient(&product);
                taps.push(self.reshape(&sum, &[1, -1]));
            }
        }
        let taps = self.concat(&taps.iter().collect::<Vec<_>>(), 0);
        let taps = self.transpose(&taps, &[1, 0]);
        self.reshape(&taps, &[-1, 1, kernel, kernel])
    }

    /// The transposed convolution, which for stride 1 is one with the kernel rotated by 180 degrees, and faster so.
    fn depthwise_input_gradient(&mut self, weight: &Value, dy: &Value, window: Window, channels: usize) -> Value {
        if window.stride > 1 {
            let (filled, even) = self.evenly_padded(weight, window);
            let filled = self.narrow(&filled);
            return self.node("ConvTranspose", &[dy, &filled], even.attributes(channels));
        }
        let weight = self.narrow(weight);
        let turned = self.slice(&weight, &[-1, -1], &[i64::MIN, i64::MIN], &[2, 3], &[-1, -1]);
        let window = Window { before: window.after(), ..window };
        self.node("Conv", &[dy, &turned], window.attributes(channels))
    }

    fn relu_gradient(&mut self, y: &Value, dy: &Value) -> Value {
        if self.cuda {
            return self.on_cuda("ReluGradient", &[y, dy], vec![], 1).remove(0);
        }
        let zero = self.map_scalar(0.0);
        let positive = self.node("Greater", &[y, &zero], vec![]);
        self.chosen(&positive, dy)
    }

    fn relu6_gradient(&mut self, [x, y]: [&Value; 2], dy: &Value) -> Value {
        if self.cuda {
            return self.on_cuda("ReluGradient", &[x, dy], vec![Attribute::float("ceiling", 6.0)], 1).remove(0);
        }
        let [zero, six] = [0.0, 6.0].map(|bound| self.map_scalar(bound));
        let positive = self.node("Greater", &[y, &zero], vec![]);
        let below = self.node("Less", &[y, &six], vec![]);
        let inside = self.node("And", &[&positive, &below], vec![]);
        self.chosen(&inside, dy)
    }

    /// The gradient goes only to the first maximum of each window in row order, as in Keras: the four corners of the
    /// windows are compared in turn, and a gradient that one corner takes is no longer available to those that follow.
    fn max_pool_gradient(&mut self, x: &Value, y: &Value, dy: &Value, channels: usize) -> Value {
        let block = || vec![Attribute::int("blocksize", 2)];
        let blocks = self.node("SpaceToDepth", &[x], block());
        let mut left = dy.clone();
        let mut taken = Vec::with_capacity(4);
        for corner in &self.split(&blocks, &[channels; 4], 1)[..3] {
            let is_maximum = self.node("Equal", &[corner, y], vec![]);
            let part = self.chosen(&is_maximum, &left);
            left = self.node("Sub", &[&left, &part], vec![]);
            taken.push(part);
        }
        taken.push(left);
        let taken = self.concat(&taken.iter().collect::<Vec<_>>(), 1);
        self.node("DepthToSpace", &[&taken], block())
    }

    /// `x` where a condition holds, 0 elsewhere: a product, because ONNX Runtime's `Where` is several times slower.
    fn chosen(&mut self, condition: &Value, x: &Value) -> Value {
        let share = self.cast(condition, if self.half { FLOAT16 } else { FLOAT });
        self.node("Mul", &[x, &share], vec![])
    }

    /// A scalar in the element type of maps.
    fn map_scalar(&mut self, value: f32) -> Value {
        if self.half {
            self.constant(FLOAT16, vec![], half::f16::from_f32(value).to_le_bytes().to_vec())
        } else {
            self.scalar(value)
        }
    }

    /// All four taps in one product with the output gradient, whose 2x2 blocks are laid out as channels.
    fn up_kernel_gradient(&mut self, x: &Value, [dy, wide]: [&Value; 2], out_channels: usize) -> Value {
        if self.cuda {
            // That of the convolution which is the way back: from the gradient to the maps.
            return self.cuda_kernel_gradient([dy, x], Window { kernel: 2, stride: 2, before: 0 }, 1);
        }
        let blocks = self.node("SpaceToDepth", &[wide], vec![Attribute::int("blocksize", 2)]);
        let x = self.wide(x);
        let product = self.product_of_maps(&x, &blocks);
        let taps = self.reshape(&product, &[0, 2, 2, out_channels as i64]);
        self.transpose(&taps, &[0, 3, 1, 2])
    }

    /// Each map of `a` times each of `b`, summed over the pixels, mean over the batch: `[maps of a, maps of b]`.
    fn product_of_maps(&mut self, a: &Value, b: &Value) -> Value {
        let [a, b] = [a, b].map(|it| self.reshape(it, &[0, 0, -1]));
        let b = self.transpose(&b, &[0, 2, 1]);
        let product = self.node("MatMul", &[&a, &b], vec![]);
        self.reduce("ReduceMean", &product, &[0], false)
    }

    /// The finished file, without tensors that nothing reads.
    #[must_use]
    pub fn finish(mut self, name: &str, doc: &str, metadata: &[(&str, String)]) -> Vec<u8> {
        name.clone_into(&mut self.graph.name);
        let used: HashSet<&String> = self.graph.node.iter().flat_map(|it| &it.input).collect();
        self.graph.initializer.retain(|it| used.contains(&it.name));
        let mut operator_sets = vec![OperatorSetId { domain: String::new(), version: OPSET_VERSION }];
        if self.graph.node.iter().any(|node| node.domain == DOMAIN) {
            operator_sets.push(OperatorSetId { domain: DOMAIN.to_owned(), version: 1 });
        }
        let entry = |(key, value): &(&str, String)| StringStringEntry { key: (*key).to_owned(), value: value.clone() };
        let model = Model {
            ir_version: IR_VERSION,
            producer_name: "lookbook".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            doc_string: doc.to_owned(),
            graph: Some(self.graph),
            opset_import: operator_sets,
            metadata_props: metadata.iter().map(entry).collect(),
        };
        model.encode_to_vec()
    }
}

/// Gradients found so far in the backward pass.
struct Gradients {
    of: HashMap<Value, Value>,
    needed: HashSet<Value>,
}

impl Gradients {
    /// Adds a contribution to the gradient of `value`, if anything needs it.
    fn add(&mut self, builder: &mut Builder, value: &Value, contribution: impl FnOnce(&mut Builder) -> Value) {
        if !self.needed.contains(value) {
            return;
        }
        let mut gradient = contribution(builder);
        if let Some(before) = self.of.get(value) {
            gradient = builder.node("Add", &[before, &gradient], vec![]);
        }
        self.of.insert(value.clone(), gradient);
    }
}

/// Pixels of each part in which the sum over a map is done: the fewest that divide it, from [`PART_PIXELS`] on.
fn part_len(pixels: usize) -> usize {
    (PART_PIXELS..pixels).find(|&part| pixels.is_multiple_of(part)).unwrap_or(pixels)
}

fn same(kernel: usize) -> Vec<Attribute> {
    let (kernel, reach) = (kernel as i64, kernel as i64 / 2);
    vec![Attribute::ints("kernel_shape", &[kernel; 2]), Attribute::ints("pads", &[reach; 4])]
}

fn strides_2() -> Attribute {
    Attribute::ints("strides", &[2, 2])
}

fn value_info(name: &str, elem_type: i32, dims: &[Dim]) -> ValueInfo {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => Size::Fixed(*size as i64),
        Dim::Batch => Size::Named("batch".to_owned()),
    };
    let shape = Shape { dim: dims.iter().map(|dim| Dimension { size: Some(size(dim)) }).collect() };
    ValueInfo {
        name: name.to_owned(),
        r#type: Some(Type { tensor_type: Some(TensorType { elem_type, shape: Some(shape) }) }),
    }
}
