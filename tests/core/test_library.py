"""What a client may make a node download by naming it."""

import pytest

from herd.core.library import is_library_name


@pytest.mark.parametrize(
    "name",
    ["llama3.2:latest", "qwen3:8b-q4_K_M", "someone/model:1b", "hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M",
     "nomic-embed-text:v1.5", "_own:latest", "cloudy:7b", "gpt-4o:latest"],
)  # fmt: skip
def test_names_of_the_librarys_form_could_be_pulled(name):
    """Whether it exists only the library knows; it is asked once."""
    assert is_library_name(name)


@pytest.mark.parametrize(
    "name",
    ["registry.example.com/someone/model:1b", "evil.example:8080/a/b:latest", "localhost/model:latest:x",
     "huggingface.co.evil.example/a/b:latest", "https://example.com/model:latest", "a/b/c:latest"],
)  # fmt: skip
def test_a_client_does_not_name_the_host_that_a_node_downloads_from(name):
    """It would make every node of the fleet fetch from wherever a stranger says."""
    assert not is_library_name(name)


@pytest.mark.parametrize(
    "name",
    ["/models/llama.gguf:latest", "../secret:latest", "a..b:latest", "llama-3.gguf:latest", "weights.SafeTensors:1",
     "C:\\models\\x:latest", "", ":latest", "llama 3:latest", "llama:8b\n", "-rf:latest", "x" * 81 + ":latest"],
)  # fmt: skip
def test_paths_files_and_nonsense_are_no_names_of_models(name):
    """llama.cpp's clients send the path of their file; nobody meant a download."""
    assert not is_library_name(name)


@pytest.mark.parametrize("name", ["gpt-oss:120b-cloud", "deepseek-v3.1:671b-CLOUD", "qwen3-coder:cloud"])
def test_cloud_models_are_not_pulled(name):
    """What would come is the promise to send prompts out of the house."""
    assert not is_library_name(name)


def test_the_librarys_own_models_are_named_without_their_namespace():
    """Ollama lists `library/m` as `m`: the request would wait for a name that never comes."""
    assert not is_library_name("library/llama3.2:latest")
    assert is_library_name("librarian/llama3.2:latest")
