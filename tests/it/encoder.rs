//! The installer of the pretrained encoder, and what it does with a wheel that is not as it should be.

use std::path::{Path, PathBuf};
use std::process::Command;

use lookbook::graph::encoder::lite0;
use lookbook::model::encoder::{EncoderFile, FOLDER};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

const FILE: &str = "efficientnet-lite0.safetensors";

/// Writes a small encoder with `timm`'s names; all its weights are `weight`.
pub(crate) fn write_small_encoder(path: &Path, weight: f32) {
    let mut tensors = Vec::new();
    let mut layer = |convolution: String, norm: String, dims: [usize; 4]| {
        let mut add = |name: String, dims: Vec<usize>, value: f32| {
            let bytes: Vec<u8> = vec![value; dims.iter().product()].iter().flat_map(|it| it.to_le_bytes()).collect();
            tensors.push((name, dims, bytes));
        };
        add(format!("{convolution}.weight"), dims.to_vec(), weight);
        for (kind, value) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
            add(format!("{norm}.{kind}"), vec![dims[0]], value);
        }
    };
    layer("conv_stem".to_owned(), "bn1".to_owned(), [8, 3, 3, 3]);
    for stage in 0..7 {
        let of = |name: &str| format!("blocks.{stage}.0.{name}");
        if stage == 0 {
            layer(of("conv_dw"), of("bn1"), [8, 1, 3, 3]);
            layer(of("conv_pw"), of("bn2"), [16, 8, 1, 1]);
        } else {
            layer(of("conv_pw"), of("bn1"), [32, 16, 1, 1]);
            layer(of("conv_dw"), of("bn2"), [32, 1, 3, 3]);
            layer(of("conv_pwl"), of("bn3"), [16, 32, 1, 1]);
        }
    }
    let views = tensors
        .iter()
        .map(|(name, dims, bytes)| (name.as_str(), TensorView::new(Dtype::F32, dims.clone(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

/// Makes wheels as `torch.save` would have, without its library: all tensors are 2 x 3 and stored by columns. `good.whl` is as
/// the real one; each of the others is bad in the way that its name says.
const WHEELS: &str = r#"
import collections, io, os, pickle, struct, sys, types, zipfile
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import convert_encoder

torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
def rebuild(*_): pass
rebuild.__module__, rebuild.__qualname__, utils._rebuild_tensor_v2 = "torch._utils", "_rebuild_tensor_v2", rebuild
FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
torch.FloatStorage, torch._utils = FloatStorage, utils
sys.modules.update({"torch": torch, "torch._utils": utils})

class Reference(tuple): pass
class Tensor:
    def __init__(self, key, strides=(1, 2)): self.key, self.strides = key, strides
    def __reduce__(self):
        storage = Reference(("storage", FloatStorage, self.key, "cpu", 6, None))
        return rebuild, (storage, 0, (2, 3), self.strides, False, collections.OrderedDict())
class Pickler(pickle.Pickler):
    def persistent_id(self, it): return tuple(it) if isinstance(it, Reference) else None
class Call:
    def __init__(self, function, *arguments): self.call = function, arguments
    def __reduce__(self): return self.call

def file(tensors, keys=("7",), magic=convert_encoder.MAGIC, values=(1, 2, 3, 4, 5, 6), little_endian=True):
    to = io.BytesIO()
    for it in [magic, convert_encoder.PROTOCOL, {"little_endian": little_endian}, tensors, list(keys)]:
        Pickler(to, 2).dump(it)
    for _ in keys:
        to.write(struct.pack("<q6f", 6, *values))
    return to.getvalue()

def wheel(name, data):
    with zipfile.ZipFile(name + ".whl", "w") as archive:
        archive.writestr("models/efficientnet.pth", data)
        archive.writestr("model.dist-info/LICENSE", "Licence\n")

tensors = collections.OrderedDict()
for (layer, norm), _ in convert_encoder.names("lite0"):
    for name in [layer + ".weight"] + [norm + "." + kind for kind in convert_encoder.KINDS]:
        tensors[name] = Tensor("7")
good = file(tensors)
wheel("good", good)
wheel("cut", good[:-1])
wheel("cut_pickle", good[:2000])
wheel("longer", good + b"x")
wheel("empty", b"")
wheel("system", file({"a": Call(os.system, "touch ran")}))
wheel("eval", file({"a": Call(eval, "open('ran', 'w')")}))
wheel("magic", file(tensors, magic=Call(os.mkdir, "ran")))
wheel("call_storage", file({"a": Call(FloatStorage)}))
wheel("other_number", file(tensors, magic=1))
wheel("big_endian", file(tensors, little_endian=False))
wheel("not_tensors", file({"a": 1}))
wheel("outside", file(dict(tensors, a=Tensor("7", (1, 9)))))
wheel("backwards", file(dict(tensors, a=Tensor("7", (1, -1)))))
wheel("other_storage", file(dict(tensors, a=Tensor("8"))))
wheel("no_stem", file({"a": Tensor("7")}))
wheel("nan", file(tensors, values=(1, 2, 3, 4, 5, float("nan"))))
"#;

#[test]
fn a_wheel_is_converted_and_nothing_in_it_is_run() {
    let place = tempfile::tempdir().unwrap();
    let output = Command::new("python3")
        .args(["-c", WHEELS])
        .arg(script(""))
        .current_dir(place.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = place.path().join("encoder");
    std::fs::create_dir(&folder).unwrap();
    let convert = |wheel: &str| {
        let mut python = Command::new("python3");
        python.arg(script("convert_encoder.py")).arg(place.path().join(wheel)).arg("lite0").arg(&folder);
        python.current_dir(place.path());
        let output = python.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let mut refused = 0;
    for (wheel, problem) in [
        ("cut", "it is cut off"),
        ("cut_pickle", "it is damaged"),
        ("longer", "it goes on after its last storage"),
        ("empty", "it is damaged"),
        ("system", "it names posix.system, which is no tensor; nothing of it was run"),
        ("eval", "it names __builtin__.eval"),
        ("magic", "it names posix.mkdir"),
        ("call_storage", "it is damaged"),
        ("other_number", "it is not of torch.save before PyTorch 1.6"),
        ("big_endian", "it is not little-endian"),
        ("not_tensors", "it does not hold tensors by name alone"),
        ("outside", "its tensor 'a' does not fit into its storage"),
        ("backwards", "its tensor 'a' has an invalid shape"),
        ("other_storage", "its tensor 'a' does not fit into its storage"),
        ("no_stem", "it has no tensor '_conv_stem.weight'"),
        ("nan", "its tensor '_conv_stem.weight' is not all finite numbers"),
    ] {
        let (succeeded, text) = convert(&format!("{wheel}.whl"));
        assert!(!succeeded && text.contains(&format!("{wheel}.whl: {problem}")), "{wheel}: {text}");
        assert!(!text.contains("Traceback"), "{text}");
        assert!(!place.path().join("ran").exists(), "{wheel} ran");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{wheel}: nothing is written");
        refused += 1;
    }
    assert_eq!(refused, 16);

    let (succeeded, text) = convert("good.whl");
    assert!(succeeded, "{text}");
    let bytes = std::fs::read(folder.join(FILE)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), 5 * (1 + 2 + 15 * 3));
    let tensor = tensors.tensor("blocks.0.0.conv_dw.weight").unwrap();
    let values: Vec<f32> = tensor.data().as_chunks().0.iter().map(|&it| f32::from_le_bytes(it)).collect();
    assert_eq!((tensor.shape(), values.as_slice()), (&[2, 3][..], &[1.0, 3.0, 5.0, 2.0, 4.0, 6.0][..]));
    assert!(tensors.tensor("blocks.6.0.bn3.running_var").is_ok());
    let problem = EncoderFile::open(&folder.join(FILE)).expect_err("2 x 3 is not its shape").to_string();
    assert!(problem.contains("'conv_stem.weight' of shape [2, 3]"), "{problem}");
}

#[test]
fn the_installer_says_what_is_missing() {
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("with blanks/encoder");
    let install = |variables: &[(&str, &str)]| {
        let mut installer = Command::new(script("install_encoder.sh"));
        let output = installer.arg(&target).envs(variables.iter().copied()).output().unwrap();
        assert!(!output.status.success(), "{variables:?}");
        let left = target.parent().filter(|it| it.exists()).map_or(0, |it| std::fs::read_dir(it).unwrap().count());
        assert_eq!(left, 0, "nothing half-made is left");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let message = install(&[("PYTHON", "/nowhere/python3")]);
    assert!(message.contains("'/nowhere/python3' is not there; install Python 3 with pip"), "{message}");
    let message = install(&[("PYTHON", "false")]);
    assert!(message.contains("'false' has no pip"), "{message}");
    // As without a network.
    let message = install(&[("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", place.path().to_str().unwrap())]);
    for advice in ["pip could not download", "PIP_FIND_LINKS=that folder", "recipe = \"best\""] {
        assert!(message.contains(advice), "{message}");
    }
}

/// An installed encoder; `None`, said aloud, if it is not there.
fn installed(name: &str) -> Option<EncoderFile> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER).join(name);
    if !path.exists() {
        crate::shared::not_installed(&format!("there is no {} (scripts/install_encoder.sh makes it)", path.display()));
        return None;
    }
    Some(EncoderFile::open(&path).unwrap())
}

/// Checks the licence, and numbers of some tensors: the first, and their sum.
fn check_installed(file: &EncoderFile, numbers: [(&str, f64, f64); 3]) {
    assert_eq!(file.licence(), Some("Apache-2.0"));
    let licence = String::from_utf8(file.licence_text().unwrap().unwrap()).unwrap();
    assert!(licence.contains("ML Illustrated") && licence.contains("END OF TERMS AND CONDITIONS"));
    for (name, first, sum) in numbers {
        let values = file.tensors()[name].iter().map(|&it| f64::from(it));
        assert_eq!(values.clone().next(), Some(first), "{name}");
        assert!((values.sum::<f64>() - sum).abs() < 1e-9, "{name}");
    }
}

#[test]
fn the_installed_encoders_are_lite0_and_lite2() {
    let (Some(small), Some(large)) = (installed(FILE), installed("efficientnet-lite2.safetensors")) else { return };
    // Numbers as `torch.load` (PyTorch 2.15) has them.
    assert_eq!(*small.encoder(), lite0());
    let numbers = [
        ("stem.weight", -1.110_336_065_292_358_4, -26.811_376_610_887_237),
        ("block4.depthwise.weight", 0.013_516_142_964_363_098, 25.451_435_315_888_375),
        ("block16.project.variance", 1.478_985_071_182_251, 515.495_052_218_437_2),
    ];
    check_installed(&small, numbers);
    assert_eq!((large.encoder().blocks.len(), &large.encoder().padding), (21, &lite0().padding));
    let numbers = [
        ("stem.weight", 0.087_553_717_195_987_7, -17.797_104_951_503_57),
        ("block4.depthwise.weight", 0.070_002_615_451_812_74, 13.051_186_299_883_28),
        ("block21.project.variance", 0.821_291_565_895_080_6, 383.360_353_529_453_3),
    ];
    check_installed(&large, numbers);
}
