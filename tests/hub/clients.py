"""What the tests let huggingface_hub and transformers do, which know nothing of bigsmall. HF_ENDPOINT says with which Hub.

clients.py upload FOLDER REPO      creates the repo and uploads the folder
clients.py download REPO FOLDER    lists the files and downloads all of them
clients.py load REPO FOLDER        loads the model by its name and compares it with the one in the folder
"""

import os
import sys

os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

from huggingface_hub import HfApi  # noqa: E402: it reads the environment when imported

api = HfApi()


def upload(folder, repo):
    assert api.whoami()["name"] == repo.split("/")[0]
    api.create_repo(repo, private=True)
    assert api.repo_exists(repo) and not api.repo_exists(repo + "-not")
    commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="From Python")
    assert api.model_info(repo).sha == commit.oid
    assert repo in [model.id for model in api.list_models(author=repo.split("/")[0])]
    api.create_branch(repo, branch="stable")


def download(repo, folder):
    files = api.list_repo_files(repo)
    sizes = {file.path: file.size for file in api.list_repo_tree(repo, recursive=True) if hasattr(file, "size")}
    assert sorted(sizes) == sorted(files), (sizes, files)
    info = api.get_paths_info(repo, files[-1:])
    assert info[0].size == sizes[files[-1]]
    api.snapshot_download(repo, local_dir=folder)
    snapshot = api.snapshot_download(repo)
    for name in files:
        assert os.path.getsize(os.path.join(snapshot, name)) == sizes[name], name


def load(repo, folder):
    import torch
    from transformers import AutoModel, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    wanted = AutoModel.from_pretrained(folder, dtype="auto").state_dict()
    there = AutoModel.from_pretrained(repo, dtype="auto").state_dict()
    assert list(wanted) == list(there) and len(wanted) > 10
    for name in wanted:
        assert torch.equal(wanted[name], there[name]), name
    assert AutoTokenizer.from_pretrained(repo).get_vocab() == AutoTokenizer.from_pretrained(folder).get_vocab()


{"upload": upload, "download": download, "load": load}[sys.argv[1]](*sys.argv[2:])
