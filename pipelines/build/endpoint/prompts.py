"""What the endpoint is asked (stages 6 to 8 of the paper's section 8, in our own words)."""

SYSTEM = (
    "You look at satellite and aerial images in which regions are marked by thin coloured outlines. "
    "The outlines are not part of the scene: never mention outlines or their colours. Answer with the "
    "JSON that is asked for."
)
JUDGE_REGION = (
    "The region outlined in red is labelled as: {noun}. Score from 1 (poor) to 5 (excellent): "
    "soundness, whether it really is this and the outline follows it; distinctness, whether it stands "
    "out from what is around it; unambiguity, whether a person could be led to exactly this region by "
    "words."
)
REFER = (
    "The region outlined in red is: {noun}. Write one referring phrase of 6 to 18 words that leads to "
    "exactly this region by what it is, where it lies, and what is near it. Name no other region of "
    "its kind. Known to be true: {hint}"
)
ATTRIBUTE = (
    "The region outlined in red is the only {noun} in the image. Write a question of 15 to 35 words "
    "whose answer is this region, from what it is used for or what it is like. Never name it, nor a "
    "synonym. Then give a short true explanation, which may name it."
)
CUES = (
    "The image shows {number} regions of the kind: {noun}. The target is outlined in red, the others "
    "in {others}. List one to five visible cues (position, size, neighbours, surroundings) that set "
    "the target apart from the others."
)
CONTEXT = (
    "The target, outlined in red, is one of {number} regions of the kind: {noun}. These cues set it "
    "apart: {cues} Write a question of 15 to 40 words that describes what such regions are for, and "
    "uses the cues to ask for exactly the target. Never name the kind, nor a synonym. Then give a "
    "short true explanation, which may name it."
)
JUDGE_SAMPLE = (
    'The region outlined in red was asked for by this instruction: "{instruction}"{explanation} '
    "Score from 1 (poor) to 5 (excellent): correctness, whether all that is said is true of the region; "
    "uniqueness, whether it fits this region and no other; clarity, whether it is well written and "
    "easy to understand."
)
EXPLAINED = ' The explanation given is: "{answer}"'
AGAIN = "That was not the JSON asked for ({error}). Answer again with nothing but that JSON."
