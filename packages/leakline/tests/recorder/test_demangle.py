"""Names of functions in their source's terms. The expected Rust names are rustc's own (without crates' hashes)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from leakline.recorder import demangle as module
from leakline.recorder.demangle import demangle
from leakline.recorder.demangle_rust import demangle_rust

STD = "CsjrHSEGnQ3l9_3std"


@pytest.mark.parametrize(
    ("mangled", "plain"),
    [
        ("main", "main"),
        ("_PyEval_EvalFrameDefault.cold", "_PyEval_EvalFrameDefault"),
        ("query.isra.0.constprop.1", "query"),
        ("query.part.3", "query"),
        ("_ZN3app6ClientISt6vectorIiSaIiEEE13QryServerPortEi.isra.0",
         "app::Client<std::vector<int, std::allocator<int> > >::QryServerPort(int)"),
        ("_ZN3app12_GLOBAL__N_16hiddenEv", "app::(anonymous namespace)::hidden()"),
        ("_ZZ4mainENKUliE_clEi", "main::{lambda(int)#1}::operator()(int) const"),
        ("_Z", "_Z"),
        ("_Zfalse", "_Zfalse"),
        ("", ""),
        # Rust, v0: inherent and trait implementations, generics, closures, back references, constants, dyn, fn, slices
        ("_RNvCs6GmmlP4bgsG_1r4main", "r::main"),
        ("_RINvCs6GmmlP4bgsG_1r5applyNCNCNvB2_4mains0_00EB2_", "r::apply::<r::main::{closure#2}::{closure#0}>"),
        ("_RINvMCs6GmmlP4bgsG_1rINtB3_1SReE2goKj7_EB3_", "<r::S<&str>>::go::<7>"),
        ("_RNvXs0_NtNtCsgEmfK2I1SDS_4core3num7dec2fltC3f16NtNtNtB9_3str6traits7FromStr8from_str",
         "<f16 as core::str::traits::FromStr>::from_str"),
        (f"_RINvMs0_NtNtNt{STD}12backtrace_rs9symbolize5gimliNtB6_5Cache11with_globalNCNvB6_7resolves_0EBc_",
         "<std::backtrace_rs::symbolize::gimli::Cache>::with_global::<std::backtrace_rs::symbolize::gimli::resolve::{closure#1}>"),
        ("_RYFUKCRShEuNtC4core2FnE", None),
        ("_RNvC6_123foo3bar", "123foo::bar"),
        ("_RNqCs4fqI2P2rA04_11utf8_identsu30____7hkackfecea1cbdathfdh9hlq6y",
         "utf8_idents::საჭმელად_გემრიელი_სადილი"),
        ("_RMC0INtC8arrayvec8ArrayVechKj7b_E", "<arrayvec::ArrayVec<u8, 123>>"),
        ("_RMC0INtC4core4boolKb1_E", "<core::bool<true>>"),
        ("_RMC0INtC4core4charKc76_E", "<core::char<'v'>>"),
        ("_RMC0INtC4core3intKsn98_E", "<core::int<-152>>"),
        ("_RIC0FUKCRShjEuE", '::<unsafe extern "C" fn(&[u8], usize)>'),
        ("_RIC0DG_NtC4core5Clonep4ItemRL0_hEL_E", "::<dyn for<'a> core::Clone<Item = &'a u8>>"),
        ("_RIC0TlyEE", "::<(i32, u64)>"),
        ("_RIC0Ahj4_E", "::<[u8; 4]>"),
        # Rust, the older mangling
        ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad"),
        ("_ZN71_$LT$std..fs..File$u20$as$u20$std..io..Read$GT$4read17h0123456789abcdefE", None),
        ("_ZN47_$LT$std..fs..File$u20$as$u20$std..io..Read$GT$4read17h0123456789abcdefE.llvm.77",
         "<std::fs::File as std::io::Read>::read"),
    ],
)  # fmt: skip
def test_names(mangled: str, plain: str | None) -> None:
    if plain is None:  # damaged: never half a name
        assert demangle_rust(mangled) is None
    else:
        assert demangle(mangled) == plain


def test_without_a_runtime_library_the_filter_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RUNTIMES", ("libnothing.so.0",))
    module._cpp.cache_clear()
    demangle.cache_clear()
    try:
        assert demangle("_ZN3app5queryEi") == "app::query(int)"
        monkeypatch.setattr(module.shutil, "which", lambda name: None)
        module._cpp.cache_clear()
        assert demangle("_ZN3app6answerEi") == "_ZN3app6answerEi"
    finally:
        module._cpp.cache_clear()
        demangle.cache_clear()


@given(some.text("_RNvMXYICBEKTSRQPOFDGLsup0123456789abcjh", max_size=60))
def test_no_rust_name_takes_long_or_raises(text: str) -> None:
    named = demangle_rust("_R" + text)
    assert named is None or len(named) <= 1 << 14


def test_a_name_that_unfolds_without_end_is_refused() -> None:
    assert demangle_rust("_RIC0" + "T" + "".join("TB4_E" for _ in range(40)) + "EE") is None
    assert demangle_rust("_RIC0" + "S" * 5000 + "hE") is None


def test_a_long_name_of_cpp_is_found_to_be_no_rust_name_at_once() -> None:
    began = time.process_time()
    assert demangle_rust("_ZN" + "2v8" * 400 + "Ev") is None  # V8's names have as many numbers; minutes, if backtracked
    assert time.process_time() - began < 1
