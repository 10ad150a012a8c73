"""What errors are told apart by, in the words of the libraries that raise them."""

import errno

import pytest
import torch

from sgm.errors import UserError, in_one_line, is_out_of_memory, is_out_of_room


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.9 GiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GiB)"),
        RuntimeError("could not create a primitive"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_memory_that_ran_out_in_many_words(error):
    assert is_out_of_memory(error)
    assert in_one_line(error).startswith("out of memory: try --memory lowest")


def test_the_processors_own_words():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(error.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`"),
        RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_what_is_no_want_of_memory(error):
    assert not is_out_of_memory(error)
    assert "out of memory" not in in_one_line(error)


def test_nothing_can_be_written_where_the_disk_or_the_quota_is_full_or_it_is_read_only():
    full = {code for code in errno.errorcode if is_out_of_room(OSError(code, "x"))}
    assert full == {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
    assert not is_out_of_room(OSError("without a number"))
    told = UserError("can't write")
    told.__cause__ = OSError(errno.ENOSPC, "full")
    assert is_out_of_room(told)
    assert not is_out_of_room(RuntimeError("No space left on device"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_how_to_go_on(number):
    line = in_one_line(OSError(number, "full"))
    assert line.endswith("full: free some space, or write to another disk")


def test_other_errors_of_files_keep_their_words():
    assert in_one_line(OSError(errno.EIO, "damaged")) == f"[Errno {errno.EIO}] damaged"
