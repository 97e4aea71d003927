"""Writes tests/data/mat_kinds: label maps and data sets in every form of .mat file that scipy and h5py write or read.

    python3 scripts/oracles/mat_kinds.py tests/data/mat_kinds     (scipy 1.17, h5py 3.16, numpy 2)

The files are stored deflated. `v5/NAME.mat` each hold the 5 x 4 map `groundtruth` of VALUES, beside what NAME says; `v73/NAME.mat` each the same two
entries (see `entries`), `refused/NAME.mat` those with one fault. `expected.json` has the maps and segmentations as scipy and h5py read them from those files.
"""

import json
import pathlib
import struct
import sys
import zlib

import h5py
import numpy as np
import scipy.io
import scipy.sparse

VALUES = (np.arange(20).reshape(5, 4) * 7 % 3).astype("u1")
CATEGORIES = ("bk T-shirt bag belt blazer blouse coat dress face hair hat jeans legging pants scarf shoe shorts skin "
              "skirt socks stocking sunglass sweater").split()
COLORS = "bk beige black blue brown gray green orange pink purple red white yellow".split()
HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created by h5py for a test HDF5 schema 1.00 .".ljust(116)


# ---- MATLAB v5 ------------------------------------------------------------------------------------------------------

def element(kind, content, order="<", small=False, pad=True):
    """A data element; `small` as MATLAB and Octave write up to four bytes."""
    if small and 0 < len(content) <= 4:
        return struct.pack(order + "I", len(content) << 16 | kind) + content.ljust(4, b"\0")
    padding = -len(content) % 8 if pad else 0
    return struct.pack(order + "II", kind, len(content)) + content + bytes(padding)


def array(values, name="groundtruth", order="<", kind=2, form="u1", klass=9, small=False, pad=True):
    """A numeric array of class `klass`, its numbers stored as data type `kind`."""
    data = values.T.astype(order + form).tobytes()
    shape = struct.pack(order + f"{values.ndim}i", *values.shape)
    parts = [element(6, struct.pack(order + "II", klass, 0), order), element(5, shape, order),
             element(1, name.encode(), order, small), element(kind, data, order, small, pad)]
    return element(14, b"".join(parts), order, pad=pad)


def v5(content, order="<", text=b"MATLAB 5.0 MAT-file, by hand"):
    end = b"\0\1IM" if order == "<" else b"\1\0MI"
    return text.ljust(124) + end + content


def compressed(content, order="<", pad=False):
    return element(15, zlib.compress(content), order, pad=pad)


def write_v5(folder):
    folder.mkdir(parents=True, exist_ok=True)
    write = lambda name, content: (folder / f"{name}.mat").write_bytes(content)
    kinds = {"i1": (1, 8), "u1": (2, 9), "i2": (3, 10), "u2": (4, 11), "i4": (5, 12), "u4": (6, 13), "f4": (7, 7),
             "f8": (9, 6), "i8": (12, 14), "u8": (13, 15)}
    for form, (kind, klass) in kinds.items():
        for compress in (False, True):
            name = folder / f"scipy_{form}_{'compressed' if compress else 'plain'}.mat"
            scipy.io.savemat(name, {"groundtruth": VALUES.astype(form)}, do_compression=compress)
        for order, end in (("<", "little"), (">", "big")):
            write(f"stored_{form}_{end}", v5(array(VALUES, order=order, kind=kind, form=form, klass=klass), order))
            write(f"double_as_{form}_{end}", v5(array(VALUES, order=order, kind=kind, form=form, klass=6), order))
    others = {"number": 3, "text": "abc", "logical": np.array([[True, False]]), "cell": np.array([1, "a"], dtype=object),
              "struct": {"a": 1, "b": "c"}, "complex": np.array([[1 + 2j]]), "empty": np.zeros((0, 0)),
              "sparse": scipy.sparse.csc_matrix((3, 3)), "sparse2": scipy.sparse.eye(3).tocsc(),
              "int32": np.int32([[7]]), "deep": np.zeros((2, 2, 2))}
    for compress in (False, True):
        name = folder / f"beside_others_{'compressed' if compress else 'plain'}.mat"
        scipy.io.savemat(name, {**others, "groundtruth": VALUES, "z": 1}, do_compression=compress)
    opaque = element(14, element(6, struct.pack("<II", 17, 0)) + element(1, b"object") + element(1, b"MCOS", small=True)
                     + element(1, b"string") + array(VALUES + 9, ""))
    handle = element(14, element(6, struct.pack("<II", 16, 0)) + element(5, struct.pack("<ii", 1, 1))
                     + element(1, b"f", small=True) + array(VALUES + 9, ""))
    subsystem = array(VALUES + 9, "")
    write("beside_objects", v5(opaque + handle + array(VALUES) + subsystem))
    write("beside_objects_compressed", v5(b"".join(map(compressed, (opaque, handle, array(VALUES), subsystem)))))
    write("saved_twice", v5(array(VALUES * 0) + array(VALUES)))
    write("unpadded", v5(array(VALUES[:, :], pad=False) + array(VALUES, "other", pad=False)))
    write("compressed_unpadded", v5(compressed(array(VALUES + 9, "a")) + compressed(array(VALUES)) + compressed(array(VALUES, "b"))))
    write("small_elements", v5(array(VALUES[:2, :2], "gt", small=True) + array(VALUES, small=True)))
    write("other_header", v5(array(VALUES), text=b"written by something else"))
    write("logical", v5(element(14, element(6, struct.pack("<II", 0x0209, 0)) + array(VALUES)[24:])))
    scipy.io.savemat(folder / "trailing_axis.mat", {"groundtruth": VALUES[:, :, None]})
    # What scipy does not read, but other readers of MATLAB files do.
    write("padded_compressed", v5(compressed(array(VALUES + 9, "a"), pad=True) + compressed(array(VALUES), pad=True)))


# ---- MATLAB v7.3 ----------------------------------------------------------------------------------------------------

def text(group, name, value):
    data = group.create_dataset(name, data=np.frombuffer(value.encode("utf-16-le"), "<u2").reshape(-1, 1))
    data.attrs["MATLAB_class"] = np.bytes_("char")
    return data.ref


def cell(file, name, references, shape=None, **storage):
    data = file.create_dataset(name, shape or (len(references), 1), dtype=h5py.ref_dtype, **storage)
    for index, reference in enumerate(references):
        data[np.unravel_index(index, data.shape)] = reference or h5py.Reference()
    data.attrs["MATLAB_class"] = np.bytes_("cell")
    return data


def entries():
    """Name, segmentation (width, height), categories and colours of the two entries."""
    for index in range(2):
        yield (f"{index + 1:04}.jpg", (np.arange(20).reshape(4, 5) * 7 % (index + 2)).astype("f4"),
               np.array([[index + 1, 2, 3]], "f8"), np.array([[3, 2, index + 1]], "f8"))


def lists(file, refs):
    cell(file, "all_category_name", [text(refs, f"c{i}", it) for i, it in enumerate(CATEGORIES)], (1, len(CATEGORIES)))
    cell(file, "all_colors_name", [text(refs, f"k{i}", it) for i, it in enumerate(COLORS)], (1, len(COLORS)))


def photo(refs, index, name, segmentation, category, color, **storage):
    group = refs.create_group(f"p{index}")
    text(group, "img_name", name)
    group.create_dataset("segmentation", data=segmentation, **storage)
    group["category_label"] = category
    group["color_label"] = color
    return group


def photos(refs, **storage):
    return [photo(refs, index, *entry, **storage) for index, entry in enumerate(entries())]


def cells(file, refs, **storage):
    cell(file, "fashion_dataset", [group.ref for group in photos(refs, **storage)])


def big_endian(file, refs):
    groups = []
    for index, (name, segmentation, category, color) in enumerate(entries()):
        group = photo(refs, index, name, segmentation.astype(">f8"), category.astype(">i2"), color.astype(">u8"))
        del group["img_name"]
        group["img_name"] = np.frombuffer(name.encode("utf-16-be"), ">u2").reshape(-1, 1)
        groups.append(group.ref)
    cell(file, "fashion_dataset", groups)


def struct_array(file, refs):
    group = file.create_group("fashion_dataset")
    group.attrs["MATLAB_class"] = np.bytes_("struct")
    fields = {name: [] for name in ("img_name", "segmentation", "category_label", "color_label")}
    for index, (name, *arrays) in enumerate(entries()):
        fields["img_name"].append(text(refs, f"n{index}", name))
        for field, values in zip(("segmentation", "category_label", "color_label"), arrays):
            fields[field].append(refs.create_dataset(f"{field}{index}", data=values).ref)
    for name, references in fields.items():
        cell(group, name, references)


def soft_links(file, refs):
    groups = photos(refs)
    # A field, the list of photos, and a link of a link, relative and absolute.
    place = file.create_group("elsewhere")
    place["segmentation"] = groups[0]["segmentation"][...]
    del groups[0]["segmentation"]
    groups[0]["segmentation"] = h5py.SoftLink("alias")
    groups[0]["alias"] = h5py.SoftLink("/elsewhere/segmentation")
    cell(place, "list", [group.ref for group in groups])
    file["fashion_dataset"] = h5py.SoftLink("/elsewhere/./list")


def linked_in_large_groups(file, refs):
    """Groups of many links, which newer files keep in a heap of several blocks and a tree of several nodes."""
    soft_links(file, refs)
    large = file.create_group("large")
    for index in range(400):
        large[f"a_name_that_is_long_enough_to_need_more_blocks_{index:05}"] = h5py.SoftLink("/elsewhere/segmentation")
    groups = list(entries())
    del refs["p1/segmentation"]
    large["segmentation of the second"] = groups[1][1]
    refs["p1/segmentation"] = h5py.SoftLink("/large/segmentation of the second")
    del refs["p0/segmentation"]
    refs["p0/segmentation"] = h5py.SoftLink("/large/a_name_that_is_long_enough_to_need_more_blocks_00345")


def null_empty(file, refs):
    cells(file, refs)
    empty = file.create_dataset("empty", data=np.array([0, 0], "u8"))
    empty.attrs["MATLAB_empty"] = np.uint8(1)


def compact(file, refs):
    groups = photos(refs)
    for group, (_, segmentation, *_) in zip(groups, entries()):
        del group["segmentation"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(segmentation.shape)
        data = h5py.h5d.create(group.id, b"segmentation", h5py.h5t.IEEE_F32LE, space, plist)
        data.write(h5py.h5s.ALL, h5py.h5s.ALL, segmentation)
    cell(file, "fashion_dataset", [group.ref for group in groups])


def chunked_list(file, refs):
    references = [group.ref for group in photos(refs, chunks=(2, 3), compression="gzip", shuffle=True, fletcher32=True)]
    cell(file, "fashion_dataset", references, chunks=(1, 1), maxshape=(None, 1))


def hdf5_texts(file, refs):
    groups = photos(refs)
    for kind, (group, (name, *_)) in enumerate(zip(groups, entries())):
        del group["img_name"]
        group["img_name"] = name if kind == 0 else np.frombuffer(name.encode(), "u1").reshape(1, -1)
    cell(file, "fashion_dataset", [group.ref for group in groups])


def lzf(file, refs):
    cells(file, refs, chunks=(3, 2), compression="lzf")


def scale_offset(file, refs):
    groups = photos(refs)
    for group, (_, segmentation, *_) in zip(groups, entries()):
        del group["segmentation"]
        group.create_dataset("segmentation", data=segmentation.astype("i4"), chunks=(4, 5), scaleoffset=0)
    cell(file, "fashion_dataset", [group.ref for group in groups])


def write_v73(folder):
    everything = ("earliest", "v114")
    kinds = [
        ("plain", cells, "earliest", 512, True), ("no_header", cells, "earliest", 512, False),
        ("no_user_block", cells, "earliest", 0, False), ("user_block_of_2048", cells, "earliest", 2048, True),
        ("new_headers", cells, ("v110", "v110"), 512, True), ("new_headers_of_114", cells, ("v114", "v114"), 0, False),
        ("big_endian", big_endian, "earliest", 512, True), ("struct_array", struct_array, "earliest", 512, True),
        ("new_struct_array", struct_array, ("v110", "v114"), 512, True), ("soft_links", soft_links, everything, 512, True),
        ("new_soft_links", soft_links, ("v110", "v114"), 0, False), ("compact", compact, "earliest", 512, True),
        ("large_groups", linked_in_large_groups, everything, 512, True),
        ("new_large_groups", linked_in_large_groups, ("v110", "v114"), 512, True),
        ("empty_beside", null_empty, "earliest", 512, True), ("chunked_list", chunked_list, "earliest", 512, True),
        ("new_chunked_list", chunked_list, ("v110", "v114"), 512, True),
        ("texts", hdf5_texts, "earliest", 512, True), ("lzf", lzf, "earliest", 512, True),
        ("scale_offset", scale_offset, "earliest", 512, True),
    ]
    write_files(folder, kinds)


def write_files(folder, kinds):
    folder.mkdir(parents=True, exist_ok=True)
    for name, fill, libver, user_block, header in kinds:
        path = folder / f"{name}.mat"
        with h5py.File(path, "w", userblock_size=user_block, libver=libver) as file:
            refs = file.create_group("#refs#")
            lists(file, refs)
            fill(file, refs)
        if header:
            with path.open("r+b") as file:
                file.write(HEADER + bytes(8) + b"\0\2IM")


# ---- MATLAB v7.3 with one fault, or a form that is not read ------------------------------------------------------------

def one_null(file, refs):
    cell(file, "fashion_dataset", [None, photos(refs)[1].ref])


def broken(target):
    """The first reference is overwritten by `target`, once the file is closed (see `write_refused`)."""
    def fill(file, refs):
        cells(file, refs)
        file.flush()
        broken.at = file["fashion_dataset"].id.get_offset(), target
    return fill


def first_field(make):
    """The first photo's segmentation is what `make` makes of its group."""
    def fill(file, refs):
        groups = photos(refs)
        del groups[0]["segmentation"]
        make(groups[0])
        cell(file, "fashion_dataset", [group.ref for group in groups])
    return fill


def loop(group):
    group["segmentation"] = h5py.SoftLink("/one")
    group.file["one"] = h5py.SoftLink("/two")
    group.file["two"] = h5py.SoftLink("/one")


def link(target):
    return lambda group: group.__setitem__("segmentation", target)


def declared(shape, **storage):
    return lambda group: group.create_dataset("segmentation", shape, "f8", **storage)


def virtual(group):
    group["part"] = next(entries())[1]
    layout = h5py.VirtualLayout((4, 5), "f4")
    layout[:] = h5py.VirtualSource(group["part"])
    group.create_virtual_dataset("segmentation", layout)


def variable(make):
    """The list of photos is what `make` makes of the file."""
    def fill(file, refs):
        photos(refs)
        make(file)
    return fill


def list_loop(file):
    file["fashion_dataset"] = h5py.SoftLink("/fashion_dataset")


def regions(file):
    data = file["#refs#/p0/segmentation"]
    file.create_dataset("fashion_dataset", data=[data.regionref[:]], dtype=h5py.regionref_dtype)


def text_list(file):
    file["fashion_dataset"] = np.zeros((3, 1), "u2")


def empty_list(file):
    data = file.create_dataset("fashion_dataset", data=np.array([0, 0], "u8"))
    data.attrs["MATLAB_empty"] = np.uint8(1)


def newest_list(file):
    cell(file, "fashion_dataset", [file["#refs#/p0"].ref], chunks=(1, 1), compression="gzip")


def empty_labels(file, refs):
    groups = photos(refs)
    del groups[0]["category_label"]
    data = groups[0].create_dataset("category_label", data=np.array([0, 0], "u8"))
    data.attrs["MATLAB_empty"] = np.uint8(1)
    cell(file, "fashion_dataset", [group.ref for group in groups])


def null_in_struct_array(file, refs):
    struct_array(file, refs)
    references = file["fashion_dataset/segmentation"]
    references[0, 0] = h5py.Reference()


def short_struct_array(file, refs):
    struct_array(file, refs)
    del file["fashion_dataset/color_label"]
    cell(file["fashion_dataset"], "color_label", [None, refs["color_label1"].ref])


def write_refused(folder):
    old = "earliest"
    fields = {"loop": loop, "dangling_link": link(h5py.SoftLink("/nowhere")),
              "external_link": link(h5py.ExternalLink("other.h5", "/segmentation")), "virtual": virtual,
              "external_data": declared((4, 5), external=[("raw.bin", 0, 160)]), "gigantic_field": declared((8000, 8000)),
              "gigantic_chunks": declared((8000, 8000), chunks=(8000, 8000)),
              "group": lambda group: group.create_group("segmentation")}
    lists_ = {"list_of_2_44": lambda file: cell(file, "fashion_dataset", [], (1 << 44, 1)),
              "chunked_list_of_2_44": lambda file: cell(file, "fashion_dataset", [], (1 << 44, 1), chunks=(1024, 1)),
              "external_list": lambda file: file.__setitem__("fashion_dataset", h5py.ExternalLink("other.h5", "/x")),
              "dangling_list": lambda file: file.__setitem__("fashion_dataset", h5py.SoftLink("/x")),
              "list_loop": list_loop, "regions": regions, "text_list": text_list, "empty_list": empty_list}
    kinds = [("null_reference", one_null, old, 512, True), ("empty_labels", empty_labels, old, 512, True),
             ("null_in_struct_array", null_in_struct_array, old, 512, True),
             ("null_in_short_struct_array", short_struct_array, old, 512, True)]
    kinds += [(name, first_field(make), old, 512, True) for name, make in fields.items()]
    kinds += [(name, variable(make), old, 512, True) for name, make in lists_.items()]
    newest = lambda group: group.create_dataset("segmentation", data=next(entries())[1], chunks=(2, 2), compression="gzip")
    kinds += [("newest_layout", first_field(newest), ("v200", "v200"), 512, True),
              ("newest_list", variable(newest_list), ("v200", "v200"), 512, True)]
    write_files(folder, kinds)
    for name, target in [("dangling_reference", 1 << 40), ("damaged_reference", 1000), ("undefined_reference", (1 << 64) - 1)]:
        write_files(folder, [(name, broken(target), old, 512, True)])
        with (folder / f"{name}.mat").open("r+b") as file:
            file.seek(broken.at[0])
            file.write(struct.pack("<Q", target))


# ---- As scipy and h5py read them ------------------------------------------------------------------------------------

def read_v5(path):
    try:
        return np.squeeze(scipy.io.loadmat(path)["groundtruth"]).astype(int).tolist()
    except (ValueError, TypeError):
        return None


def read_v73(path):
    with h5py.File(path) as file:
        data = file["fashion_dataset"]
        if isinstance(data, h5py.Group):
            values = [file[reference][...] for reference in data["segmentation"][:, 0]]
        else:
            values = [file[reference]["segmentation"][...] for reference in data[:, 0]]
        return [value.T.astype(int).tolist() for value in values]


def main(folder):
    write_v5(folder / "v5")
    write_v73(folder / "v73")
    write_refused(folder / "refused")
    expected = {"v5": {path.stem: read_v5(path) for path in sorted((folder / "v5").glob("*.mat"))},
                "v73": {path.stem: read_v73(path) for path in sorted((folder / "v73").glob("*.mat"))}}
    for path in folder.glob("*/*.mat"):
        path.with_suffix(".mat.zz").write_bytes(zlib.compress(path.read_bytes(), 9))
        path.unlink()
    (folder / "expected.json").write_text(json.dumps(expected))
    wrong = [name for name, values in expected["v5"].items() if values not in (None, VALUES.tolist())]
    print(len(expected["v5"]), len(expected["v73"]), "wrong:", wrong,
          "not read by scipy:", [name for name, values in expected["v5"].items() if values is None])


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
