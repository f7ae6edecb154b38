"""`mode: released`: what the authors' released code computes, quirks included, so that its checkpoints work.

Everything in which it leaves the paper's equations stands in this package; all other parts are shared.

======================  ============================================================================
file                    difference from `paper` mode
======================  ============================================================================
``text.py``             prompt word "Reasoning" for every task; labels as its masking leaves them; with the
                        end token as padding, the end is hidden and only the answer is supervised
``tokenizer.py``        no token is added; padding is the folder's, the closing token is ``[SEG]``'s first id
``tate.py``             enhancement of the template's words after the image, not of the instruction; one point
                        per token; referring re-weights without rescaling; reasoning gives one vector;
                        memory on the pooled state alone, its weight by the first sample's task
``model.py``            one query for referring and pooling; zero embeddings at padding; cross-entropy as the
                        batch's token mean; coordinates relative to the image (``unigeoseg.samples.collate``);
                        windows of the vision encoder padded (``modules.swin``); no bias on the output layer
``layout.py``           names and shapes of its state dict; ``convert.py`` and ``folder.py`` use them
======================  ============================================================================
"""
