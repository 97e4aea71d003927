// Convolutions of 3x3 with stride 1 and 'same' zero padding between maps of few channels, [photo, channel, row, column]: as
// sums of products in f32, straight from the maps. cuDNN's tensor cores have no use for so few channels, and it would turn the
// maps first, which are large where channels are few.

typedef unsigned short half_bits;

__device__ inline float wide(float value) { return value; }
__device__ inline float wide(half_bits bits)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
__device__ inline void narrow(float value, float& to) { to = value; }
__device__ inline void narrow(float value, half_bits& to) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to) : "f"(value)); }

// Of maps that are in shared memory at once.
const int CHUNK = 8;
const int TAPS = 9;

// A block computes 16 rows of 32 columns of OUTPUTS maps, each of its 128 threads four neighbouring pixels.
const int ROWS = 16, COLUMNS = 32, PIXELS = 4, THREADS = ROWS * COLUMNS / PIXELS;

// `weight` is [outputs, inputs, 3, 3]; or, `turned`, that of the convolution the other way round, [inputs, outputs, 3, 3], whose
// kernels are rotated by 180 degrees: then this is the gradient of its input.
template <typename T, int OUTPUTS>
__device__ void convolve(
    const T* maps, const float* weight, const float* bias, T* to, int inputs, int outputs, int rows, int columns, int turned)
{
    __shared__ __align__(16) float seen[CHUNK][ROWS + 2][COLUMNS + 4];
    __shared__ __align__(16) float taps[CHUNK][TAPS][OUTPUTS];
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int row = thread / (COLUMNS / PIXELS), column = thread % (COLUMNS / PIXELS) * PIXELS;
    const int left = blockIdx.x * COLUMNS, top = blockIdx.y * ROWS;
    const int groups = (outputs + OUTPUTS - 1) / OUTPUTS;
    const int photo = blockIdx.z / groups, first = blockIdx.z % groups * OUTPUTS;
    const size_t pixels = (size_t)rows * columns;

    float sums[OUTPUTS][PIXELS];
#pragma unroll
    for (int output = 0; output < OUTPUTS; output++)
#pragma unroll
        for (int pixel = 0; pixel < PIXELS; pixel++) sums[output][pixel] = 0;

    for (int begin = 0; begin < inputs; begin += CHUNK) {
        const int count = min(CHUNK, inputs - begin);
        __syncthreads();
        for (int line = warp; line < count * (ROWS + 2); line += THREADS / 32) {
            const int channel = line / (ROWS + 2), at = line % (ROWS + 2), from = top + at - 1;
            const T* source = maps + ((size_t)photo * inputs + begin + channel) * pixels + (long long)from * columns;
            for (int to_column = lane; to_column < COLUMNS + 2; to_column += 32) {
                const int place = left + to_column - 1;
                const bool is_there = from >= 0 && from < rows && place >= 0 && place < columns;
                seen[channel][at][to_column] = is_there ? wide(source[place]) : 0;
            }
        }
        for (int at = thread; at < count * TAPS * OUTPUTS; at += THREADS) {
            const int output = first + at % OUTPUTS, tap = at / OUTPUTS % TAPS, channel = begin + at / OUTPUTS / TAPS;
            float value = 0;
            if (output < outputs)
                value = turned ? weight[(channel * outputs + output) * TAPS + TAPS - 1 - tap]
                               : weight[(output * inputs + channel) * TAPS + tap];
            taps[channel - begin][tap][output - first] = value;
        }
        __syncthreads();
        for (int channel = 0; channel < count; channel++) {
#pragma unroll
            for (int down = 0; down < 3; down++) {
                const float* line = &seen[channel][row + down][column];
                const float4 near = *(const float4*)line;
                const float2 far = *(const float2*)(line + PIXELS);
                const float x[PIXELS + 2] = { near.x, near.y, near.z, near.w, far.x, far.y };
#pragma unroll
                for (int along = 0; along < 3; along++) {
#pragma unroll
                    for (int output = 0; output < OUTPUTS; output += 4) {
                        const float4 w = *(const float4*)&taps[channel][down * 3 + along][output];
#pragma unroll
                        for (int pixel = 0; pixel < PIXELS; pixel++) {
                            sums[output][pixel] += w.x * x[pixel + along];
                            sums[output + 1][pixel] += w.y * x[pixel + along];
                            sums[output + 2][pixel] += w.z * x[pixel + along];
                            sums[output + 3][pixel] += w.w * x[pixel + along];
                        }
                    }
                }
            }
        }
    }

    if (top + row >= rows) return;
#pragma unroll
    for (int output = 0; output < OUTPUTS; output++) {
        if (first + output >= outputs) break;
        const float summand = bias ? bias[first + output] : 0;
        T* line = to + ((size_t)photo * outputs + first + output) * pixels + (size_t)(top + row) * columns + left + column;
        __align__(16) T results[PIXELS];
#pragma unroll
        for (int pixel = 0; pixel < PIXELS; pixel++) narrow(sums[output][pixel] + summand, results[pixel]);
        if (columns % PIXELS == 0) {
            if (left + column >= columns) break;
            if (sizeof(T) == 4)
                *(float4*)line = *(const float4*)results;
            else
                *(float2*)line = *(const float2*)results;
        } else {
            for (int pixel = 0; pixel < PIXELS; pixel++)
                if (left + column + pixel < columns) line[pixel] = results[pixel];
        }
    }
}

// The gradient of a kernel, in parts: a block goes over every gridDim.x-th tile of 8 rows of 32 columns, for 8 inputs and 8
// outputs. Each of its 256 threads has the nine taps between an input and an output, in every fourth row.
const int SUM_ROWS = 8, SUM_THREADS = 256, LINES = SUM_THREADS / CHUNK / CHUNK, PART = CHUNK * CHUNK * TAPS;
// Of a channel in shared memory, so that no two lie in the same bank.
const int MAP_STEP = (SUM_ROWS + 2) * (COLUMNS + 4) + 4, SLOPE_STEP = SUM_ROWS * COLUMNS + 4;

template <typename T>
__device__ void correlate(
    const T* maps, const T* gradient, float* parts, int photos, int inputs, int outputs, int rows, int columns)
{
    __shared__ __align__(16) float seen[CHUNK * MAP_STEP];
    __shared__ __align__(16) float slopes[CHUNK * SLOPE_STEP];
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int input = thread % CHUNK, output = thread / CHUNK % CHUNK, lines = thread / CHUNK / CHUNK;
    const int input_groups = (inputs + CHUNK - 1) / CHUNK;
    const int first_input = blockIdx.y % input_groups * CHUNK, first_output = blockIdx.y / input_groups * CHUNK;
    const int across = (columns + COLUMNS - 1) / COLUMNS, down = (rows + SUM_ROWS - 1) / SUM_ROWS;
    const size_t pixels = (size_t)rows * columns;

    float sums[TAPS];
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++) sums[tap] = 0;

    for (int tile = blockIdx.x; tile < photos * across * down; tile += gridDim.x) {
        const int photo = tile / (across * down), top = tile / across % down * SUM_ROWS, left = tile % across * COLUMNS;
        __syncthreads();
        for (int line = warp; line < CHUNK * (SUM_ROWS + 2); line += SUM_THREADS / 32) {
            const int channel = line / (SUM_ROWS + 2), at = line % (SUM_ROWS + 2), from = top + at - 1;
            const T* source = maps + ((size_t)photo * inputs + first_input + channel) * pixels + (long long)from * columns;
            const bool is_line = first_input + channel < inputs && from >= 0 && from < rows;
            for (int to_column = lane; to_column < COLUMNS + 4; to_column += 32) {
                const int place = left + to_column - 1;
                const bool is_there = is_line && place >= 0 && place < columns;
                seen[channel * MAP_STEP + at * (COLUMNS + 4) + to_column] = is_there ? wide(source[place]) : 0;
            }
        }
        for (int line = warp; line < CHUNK * SUM_ROWS; line += SUM_THREADS / 32) {
            const int channel = line / SUM_ROWS, at = line % SUM_ROWS, from = top + at, place = left + lane;
            const bool is_there = first_output + channel < outputs && from < rows && place < columns;
            const T* source = gradient + ((size_t)photo * outputs + first_output + channel) * pixels + (size_t)from * columns;
            slopes[channel * SLOPE_STEP + at * COLUMNS + lane] = is_there ? wide(source[place]) : 0;
        }
        __syncthreads();
        for (int line = lines; line < SUM_ROWS; line += LINES) {
            const float* above = seen + input * MAP_STEP + line * (COLUMNS + 4);
            const float* slope = slopes + output * SLOPE_STEP + line * COLUMNS;
            float4 near[3];
#pragma unroll
            for (int by = 0; by < 3; by++) near[by] = *(const float4*)(above + by * (COLUMNS + 4));
#pragma unroll
            for (int column = 0; column < COLUMNS; column += 4) {
                const float4 dy = *(const float4*)(slope + column);
#pragma unroll
                for (int by = 0; by < 3; by++) {
                    const float4 far = *(const float4*)(above + by * (COLUMNS + 4) + column + 4);
                    const float x[6] = { near[by].x, near[by].y, near[by].z, near[by].w, far.x, far.y };
#pragma unroll
                    for (int along = 0; along < 3; along++)
                        sums[by * 3 + along] +=
                            dy.x * x[along] + dy.y * x[along + 1] + dy.z * x[along + 2] + dy.w * x[along + 3];
                    near[by] = far;
                }
            }
        }
    }

    __syncthreads();
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++) seen[thread * TAPS + tap] = sums[tap];
    __syncthreads();
    float* part = parts + ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * PART;
    for (int at = thread; at < PART; at += SUM_THREADS) {
        float sum = 0;
        for (int line = 0; line < LINES; line++) sum += seen[line * PART + at];
        part[at] = sum;
    }
}

// Adds the parts up: a thread for each tap.
extern "C" __global__ void add_parts(const float* parts, float* to, int count, int inputs, int outputs, float scale)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    const int input_groups = (inputs + CHUNK - 1) / CHUNK, output_groups = (outputs + CHUNK - 1) / CHUNK;
    const int group = at / PART, place = at % PART;
    const int input = group % input_groups * CHUNK + place / TAPS % CHUNK;
    const int output = group / input_groups * CHUNK + place / TAPS / CHUNK;
    if (group >= input_groups * output_groups || input >= inputs || output >= outputs) return;
    double sum = 0;
#pragma unroll 8
    for (int part = 0; part < count; part++) sum += parts[((size_t)group * count + part) * PART + place];
    to[(output * inputs + input) * TAPS + place % TAPS] = (float)(sum * scale);
}

#define CONVOLVE(NAME, T, OUTPUTS)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(                                                                \
        const T* maps, const float* weight, const float* bias, T* to, int inputs, int outputs, int rows, int columns,          \
        int turned)                                                                                                            \
    {                                                                                                                          \
        convolve<T, OUTPUTS>(maps, weight, bias, to, inputs, outputs, rows, columns, turned);                                  \
    }
#define CORRELATE(NAME, T)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(SUM_THREADS) NAME(                                                            \
        const T* maps, const T* gradient, float* parts, int photos, int inputs, int outputs, int rows, int columns)            \
    {                                                                                                                          \
        correlate<T>(maps, gradient, parts, photos, inputs, outputs, rows, columns);                                           \
    }

CONVOLVE(convolve_8_f32, float, 8)
CONVOLVE(convolve_8_f16, half_bits, 8)
CONVOLVE(convolve_16_f32, float, 16)
CONVOLVE(convolve_16_f16, half_bits, 16)
CORRELATE(correlate_f32, float)
CORRELATE(correlate_f16, half_bits)
