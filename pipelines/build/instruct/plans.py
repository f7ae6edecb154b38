"""Sentence plans of the embedded writer: what a drawn phrase, role or need is put into.

Slots of a referring plan: ``np`` is the whole noun phrase; ``group`` counts the category ("two ponds");
``one`` is the phrase with "one" for the noun. Slots of a reasoning plan: ``head`` and ``heads`` are generic
words ("structure"), ``a_head`` has its article, ``role`` and ``look`` are clauses with a modal verb, ``need``
follows "to", ``who`` is somebody; ``some`` is how many there are, and ``cue`` what sets the target apart.
"""

REFERRING: tuple[str, ...] = (
    "segment {np}",
    "please segment {np}",
    "segment all of {np}",
    "mark {np}",
    "please mark {np}",
    "outline {np}",
    "please outline {np}",
    "select {np}",
    "highlight {np}",
    "find {np}",
    "locate {np}",
    "show me {np}",
    "point out {np}",
    "trace the border of {np}",
    "draw the outline of {np}",
    "give me the mask of {np}",
    "produce a mask for {np}",
    "extract {np}",
    "pick out {np}",
    "delineate {np}",
    "I am looking for {np}",
    "I need the extent of {np}",
    "in this image, segment {np}",
    "in this scene, mark {np}",
    "the target is {np}",
    "what should be segmented is {np}",
    "my interest is in {np}",
    "where is {np}?",
    "can you find {np}?",
    "could you outline {np}?",
    "can you segment {np} for me?",
    "which pixels belong to {np}?",
    "what is the exact shape of {np}?",
    "how far does {np} extend?",
)
#: For meanings that count: the group comes first, then the one that is meant.
REFERRING_COUNTED: tuple[str, ...] = (
    "there are {group} in this image; segment {one}",
    "there are {group}; mark {one}",
    "of the {group}, segment {one}",
    "of the {group} in this image, outline {one}",
    "among the {group}, find {one}",
    "this scene has {group}; I mean {one}",
    "compare the {group} and select {one}",
    "out of {group}, take {one}",
)

ATTRIBUTE: tuple[str, ...] = (
    "which {head} in this image {role}?",
    "find the {head} that {role} and {look}",
    "{who} wants to {need}. Which {head} in this image would be of use, given that it {role}?",
    "if {who} wanted to {need}, which {head} would help, seeing that it {role}?",
    "something in this scene {role}. Which {head} is it?",
    "judging by its use, which {head} {role} and would serve {who} who wants to {need}?",
    "{who} has to {need}. Segment the {head} that makes this possible",
    "it {look}, and it {role}. Which {head} is meant?",
    "think of what {who} needs in order to {need}. Which {head} here {role}?",
    "look for the {head} that {look}. It {role}",
    "which {head} would {who} look for in order to {need}, because it {role}?",
    "there is one {head} in this scene that {role}. Show exactly where it is",
    "one {head} in view {role}. Mark all of it",
    "imagine that you have to {need}. Which {head} in this image would you choose?",
    "{who} asks for help to {need}. Point out the {head} which {role}",
    "consider what each part of the scene is for, and outline the {head} that {role}",
    "to {need}, {who} would depend on {a_head} that {role}. Where is it in this image?",
    "select the {head} that fits this description: it {role}, and it {look}",
    "one day {who} has to {need}. Which {head} would you suggest, given that it {role}?",
    "which {head} would be missed most by {who} who wants to {need}, because it {role}?",
    "what in this image would allow {who} to {need}? Give the mask of that {head}",
    "use and shape together tell the {head}: it {role}, and it {look}. Segment it",
)
CONTEXT: tuple[str, ...] = (
    "{some} {heads} in this image {role}; find {cue}",
    "among the {heads} that {role}, which is {cue}?",
    "{who} wants to {need} and has {some} {heads} to choose from. Mark {cue}",
    "of all {heads} here that {role}, segment {cue}",
    "more than one {head} in this scene {role}. Which pixels belong to {cue}?",
    "if {who} wanted to {need}, {some} {heads} would do. Please outline {cue}",
    "look at the {heads} that {role}. Which of them is {cue}?",
    "to {need}, {who} would compare these {heads}. Where is {cue}?",
    "this scene has {some} {heads} that {role}. Point out {cue}",
    "there are {some} {heads} which {role}; mark {cue}",
    "compare the {heads} that {role}: where is {cue}?",
    "{who} would use any of these {heads} to {need}, but asks for {cue}. Segment it",
    "think of the {heads} that {role}. The question here is about {cue}",
    "suppose that {who} plans to {need}. Of the {heads} that would serve, take {cue}",
    "{some} {heads} in view {role}. Draw the outline of {cue}",
    "find every {head} that {role}, then keep only {cue}",
    "in this image there is more than one {head} that {role}; the question is about {cue}",
    "tomorrow {who} will have to {need}. Of the {heads} that would help, highlight {cue}",
    "ask yourself which {heads} {role}. Then give the mask of {cue}",
    "{who} needs just one of {some} {heads} to {need}. Choose {cue}",
    "these {heads} {look}, and they {role}. Mark {cue}",
    "what is each part of this scene for? Of the {heads} that {role}, show {cue}",
)

#: Beginnings of attribute plans that say that there is one, which is no question about what is not there.
_PRESUPPOSE = (
    "something in this scene",
    "{who} has to {need}. Segment",
    "it {look}",
    "there is one",
    "one {head} in view",
    "{who} asks for help",
    "select the {head}",
    "which {head} would be missed",
    "use and shape together",
)
#: Attribute plans that ask without saying that there is one.
OPEN: tuple[str, ...] = tuple(plan for plan in ATTRIBUTE if not plan.startswith(_PRESUPPOSE))

#: For all regions of a category: ``np`` is a plural noun phrase ("all the buildings") or "every building".
COLLECTIVE_PLANS: tuple[str, ...] = (
    "segment {np}",
    "please segment {np}",
    "mark {np}",
    "please mark {np}",
    "outline {np}",
    "select {np}",
    "highlight {np}",
    "find {np}",
    "show me {np}",
    "extract {np}",
    "pick out {np}",
    "delineate {np}",
    "give me one mask of {np}",
    "in this image, segment {np}",
    "in this scene, mark {np}",
    "I am looking for {np}",
    "I need the extent of {np}",
    "can you find {np}?",
    "could you outline {np}?",
    "could you segment {np} for me?",
)
#: Whole noun phrases of the above, from the noun and its plural.
ALL_OF: tuple[str, ...] = (
    "all {nouns}",
    "all the {nouns}",
    "all of the {nouns}",
    "the {nouns}",
    "every {noun}",
    "each {noun}",
    "every single {noun}",
    "all {nouns} in this image",
    "every {noun} in view",
    "any {noun} that can be seen",
)
#: The same as a question about what things are for.
COLLECTIVE_QUESTIONS: tuple[str, ...] = (
    "segment everything in this image that {role}",
    "which {heads} in this image {role}? Mark all of them",
    "find all {heads} that {role} and {look}",
    "mark every {head} that {role}",
    "{who} wants to {need}. Which {heads} in this image would be of use, given that they {role}?",
    "if {who} wanted to {need}, which {heads} would help? Show every one of them",
    "point out every {head} that {role}",
    "to {need}, {who} would look for {heads}. Segment all that {role}",
    "consider what each part of the scene is for, and outline all {heads} that {role}",
    "judging by their use, which {heads} {role}? Give one mask for all of them",
    "{who} asks for all {heads} that {role}, in order to {need}",
    "leave out nothing that {role}: outline each such {head}",
)
