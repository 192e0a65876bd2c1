//go:build linux

package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// recorded is a tally of what `go test -json` wrote of packages that pass, fail, die, leak and don't build.
func recorded(t *testing.T) *tally {
	t.Helper()
	f, err := os.Open("testdata/recorded.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	read := newTally()
	read.read(f)
	return read
}

// TestTallyCountsLeaves: six cases of contracts, one test by itself, two subtests beside what failed, one test that passed before its package leaked. What failed is a
// subtest, a parent by itself, a package that does not build, one that died and one that leaked.
func TestTallyCountsLeaves(t *testing.T) {
	got := recorded(t)
	if got.passed != 10 || got.failed != 5 || got.skipped != 1 || !slices.Equal(got.skips, []string{"TestSkipped"}) {
		t.Errorf("%d passed, %d failed, %d skipped (%q), want 10, 5, 1", got.passed, got.failed, got.skipped, got.skips)
	}
}

func TestTallyKnowsWhatWasTested(t *testing.T) {
	got := recorded(t)
	if err := got.tested("/parts/firecracker"); err != nil {
		t.Error(err)
	}
	if err := got.tested("/given/firecracker"); err == nil || !strings.Contains(err.Error(), "v1.12.1: /parts/firecracker") {
		t.Errorf("another firecracker was to be tested: %v", err)
	}
	lines := strings.Join(got.lines("3", 0), "\n")
	if want := "ring 3: 16 tests, 1 skipped, 0.0 min\nring 3 tested Firecracker v1.12.1: /parts/firecracker"; lines != want {
		t.Errorf("lines %q, want %q", lines, want)
	}
}

func TestTallyCountsCasesOnce(t *testing.T) {
	got := strings.Join(recorded(t).contractLines(), "\n")
	want := "contract: double 3 cases\ncontract: real 2 cases\n" +
		"left out by double: states/dial_running: nobody dials\nleft out by real: states/start_created: it has no states"
	if got != want {
		t.Errorf("lines\n%s\nwant\n%s", got, want)
	}
}

// A runtime falls short by too few cases, and by each that it leaves out without a reason.
func TestContractFallsShort(t *testing.T) {
	for name, row := range map[string]struct {
		passed  int // Of 100.
		reasons bool
		want    int // Problems.
	}{
		"all":                          {100, false, 0},
		"enough":                       {95, true, 0},
		"enough without reasons":       {99, false, 1},
		"too few":                      {94, true, 1},
		"too few, and without reasons": {94, false, 7},
		"none":                         {0, true, 1},
	} {
		both := newTally()
		for i := range 100 {
			name := strings.Repeat("x", i)
			both.contract("model").passed[name] = true
			if i < row.passed {
				both.contract("runtime").passed[name] = true
			} else if row.reasons {
				both.contract("runtime").left[name] = "it can't"
			}
		}
		if got := both.fallsShort("runtime", "model"); len(got) != row.want {
			t.Errorf("%s: problems %q, want %d", name, got, row.want)
		}
	}
}

func TestProblemsOfARing(t *testing.T) {
	for name, row := range map[string]struct {
		tally tally
		floor int
		says  string
	}{
		"enough":   {tally{passed: 5}, 5, ""},
		"too few":  {tally{passed: 3, failed: 1}, 5, "4 tests, and floor.json says at least 5"},
		"none":     {tally{}, 0, "no test has run"},
		"skipping": {tally{passed: 5, skipped: 1, skips: []string{"TestX"}}, 5, "1 tests were skipped: TestX"},
	} {
		got := strings.Join(row.tally.problems("2", row.floor), "\n")
		if (got == "") != (row.says == "") || !strings.Contains(got, row.says) {
			t.Errorf("%s: problems %q, want %q", name, got, row.says)
		}
	}
}
