"""Exports as a plain loop over a store's tars writes them, for comparison byte by byte."""

import io
import json
import tarfile

import cv2
from pycocotools import mask as coco_mask

from pipelines.labels.taxonomy import taxonomy

#: Fields of a sample that stand in an annotation as they are.
SAME = ("sample_id", "task", "subtask", "instruction", "answer", "points", "category")


def records(store, split):
    """(record, image) of a split in the order of its shards."""
    for path in sorted((store / "shards").glob(f"{split}-*.tar")):
        with tarfile.open(path) as tar:
            members = [(m.name, tar.extractfile(m).read()) for m in tar]
        for (_, image), (_, text) in zip(members[::2], members[1::2], strict=True):
            yield json.loads(text), image


def png(sample):
    mask = coco_mask.decode(sample["mask"] | {"counts": sample["mask"]["counts"].encode()})
    return cv2.imencode(".png", mask * 255)[1].tobytes()


def dump(content):
    return json.dumps(content, ensure_ascii=False, sort_keys=True).encode()


def member(name, body):
    info = tarfile.TarInfo(name)
    info.size = len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def plain_export(store, form, out, shard_bytes):
    """Writes all splits; gives the number of samples."""
    splits = sorted({p.name.rpartition("-")[0] for p in (store / "shards").iterdir()})
    form = {"webdataset": webdataset, "coco": coco, "release-layout": release}[form]
    found = {split: list(records(store, split)) for split in splits}
    kinds = {s["category_id"] for part in found.values() for record, _ in part for s in record["samples"]}
    return sum(form(split, part, out, (shard_bytes, kinds)) for split, part in found.items())


def webdataset(split, found, out, given):
    shard_bytes, _ = given
    number, tar, samples = 0, io.BytesIO(), 0
    for record, image in found:
        kind = record["image"]["file"].rpartition(".")[2]
        for n, sample in enumerate(record["samples"]):
            if tar.tell() >= shard_bytes:
                write(out / f"{split}-{number:05d}.tar", tar.getvalue() + bytes(1024))
                number, tar = number + 1, io.BytesIO()
            key = f"{record['key']}-{n:03d}"
            fields = {k: record[k] for k in ("source", "scene", "split", "licence")}
            fields |= {k: v for k, v in sample.items() if k != "mask"}
            tar.write(member(f"{key}.image.{kind}", image))
            tar.write(member(f"{key}.mask.png", png(sample)))
            tar.write(member(f"{key}.json", dump(fields)))
            samples += 1
    write(out / f"{split}-{number:05d}.tar", tar.getvalue() + bytes(1024))
    return samples


def coco(split, found, out, given):
    images, notes, used = [], [], given[1]
    for place, (record, image) in enumerate(found, 1):
        write(out / "images" / split / record["image"]["file"], image)
        facts = {k: record[k] for k in ("scene", "source", "licence")}
        facts |= {k: record["image"][k] for k in ("height", "width")}
        images.append(dump({"id": place, "file_name": record["image"]["file"]} | facts))
        for sample in record["samples"]:
            rle = sample["mask"] | {"counts": sample["mask"]["counts"].encode()}
            row = {k: sample.get(k) for k in SAME}
            row |= {"prompt_box": sample.get("box"), "id": len(notes) + 1, "image_id": place, "iscrowd": 0}
            row |= {"category_id": sample["category_id"], "segmentation": sample["mask"]}
            row |= {"bbox": [float(v) for v in coco_mask.toBbox(rle)], "area": int(coco_mask.area(rle))}
            notes.append(dump(row))
    rows = [{"id": i, "name": taxonomy()[i].name, "supercategory": "none"} for i in sorted(used)]
    info = {"description": f"exported from a GeoSeg store, split {split}"}
    text = b'{"info": ' + dump(info) + b',\n"categories": ' + dump(rows) + b',\n"images": [\n'
    text += b",\n".join(images) + b'],\n"annotations": [\n' + b",\n".join(notes) + b"]}\n"
    write(out / f"annotations/instances_{split}.json", text)
    return len(notes)


def release(split, found, out, given):
    entries = []
    for record, image in found:
        for n, sample in enumerate(record["samples"]):
            task = {"referring": "ref", "interactive": "intera", "reasoning": "reason"}[sample["task"]]
            place = f"{split}/{task}"
            img = f"{place}/images/{record['image']['file']}"
            mask, text = (f"{place}/{kind}/{record['key']}_{n:03d}.{end}" for kind, end in
                          (("masks", "png"), ("texts", "json")))  # fmt: skip
            write(out / img, image)
            write(out / mask, png(sample))
            reason = [sample["answer"]] if sample["answer"] else []
            write(out / text, dump({"question": [sample["instruction"]], "reason": reason}))
            entries.append({"img": img, "mask": mask, "json": text})
    write(out / f"{split}.json", json.dumps(entries, ensure_ascii=False, indent=0).encode())
    return len(entries)
