"""diffusers: `diffusion.py make DIRECTORY` makes a tiny pipeline, `diffusion.py PLAIN SHOWN` compares what two draw."""

import sys

import torch
from compare import directories, same_tensor
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel, logging

STEPS = 3


def make(directory):
    """A pipeline of random weights, as large as a test can bear."""
    torch.manual_seed(1)
    unet = UNet2DModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(32, 64),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=10)).save_pretrained(directory, safe_serialization=True)


def drawn(directory):
    pipeline = DDPMPipeline.from_pretrained(directory, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(2)
    image = pipeline(generator=generator, num_inference_steps=STEPS, output_type="np").images
    return pipeline.unet.state_dict(), torch.from_numpy(image)


def main():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if sys.argv[1:2] == ["make"]:
        return make(sys.argv[2])
    plain, shown = directories()
    (plain_weights, plain_image), (shown_weights, shown_image) = drawn(plain), drawn(shown)
    assert plain_image.std() > 0, "an image of one colour would say nothing"
    for name, weight in plain_weights.items():
        same_tensor(name, weight, shown_weights[name])
    same_tensor("the image", plain_image, shown_image)
    print(f"diffusers: {len(plain_weights)} weights and an image are the same")


main()
