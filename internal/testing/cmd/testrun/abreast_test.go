//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// script is a program of a shell's.
func script(name, text string) program {
	return program{name: name, path: "/bin/sh", args: []string{"-c", text}}
}

// says prints lines of a test binary.
func says(lines string) string { return "printf '%s' '" + lines + "'\n" }

// TestRunAll: of programs that pass, fail, die, or aren't there, none hides another, and all are counted.
func TestRunAll(t *testing.T) {
	heard := newTally()
	err := runAll(t.Context(), heard, []program{
		script("passes", says(passing)), script("fails", says(failing)+"exit 1"), script("leaks", says(passing)+"exit 1"), script("dies", says(begun)+"kill -9 $$"),
		{name: "missing", path: "/nonexistent"}, script("passes too", says(passing)),
	}, 2)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"fails ended with status 1", "leaks ended with status 1", "dies ended with status -1", "/nonexistent"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "passes") {
		t.Errorf("error %q is about what passed", err)
	}
	if heard.passed != 3 || heard.failed != 4 {
		t.Errorf("%d passed and %d failed, want 3 and 4", heard.passed, heard.failed)
	}
}

// TestSomeAtATime: as many programs run at a time as are to, and each runs once. Each of the first two waits for the other.
func TestSomeAtATime(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ran"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	meets := func(name, other string) program {
		p := script(name, fmt.Sprintf("echo %s >>ran; : >%s; for i in $(seq 600); do [ -e %s ] && exit; sleep .1; done; exit 1", name, name, other))
		p.dir = dir
		return p
	}
	alone := script("c", "echo c >>ran")
	alone.dir = dir
	if err := runAll(t.Context(), newTally(), []program{meets("a", "b"), meets("b", "a"), alone}, 2); err != nil {
		t.Fatal(err)
	}
	ran, err := os.ReadFile(filepath.Join(dir, "ran"))
	if words := strings.Fields(string(ran)); err != nil || len(words) != 3 || words[2] != "c" {
		t.Errorf("%q ran: %v", words, err)
	}
}

// TestLongestFirst: those that are known to take long begin before the others, whose order stays.
func TestLongestFirst(t *testing.T) {
	got := longestFirst([]string{"./b TestOne", "./a TestRealContractBare", "./a TestTwo", "./a TestRealContractJailed"}, func(name string) string { return name })
	if want := "[./a TestRealContractJailed ./a TestRealContractBare ./b TestOne ./a TestTwo]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
}
