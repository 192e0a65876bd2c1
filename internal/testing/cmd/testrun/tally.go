//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// tally counts tests as they end.
type tally struct {
	passed, failed, skipped int
	skips                   []string
	firecrackers            map[string]bool // What was tested: "VERSION: PATH".
	contracts               map[string]*contract
}

func newTally() *tally {
	return &tally{firecrackers: map[string]bool{}, contracts: map[string]*contract{}}
}

func (t *tally) count() int { return t.passed + t.failed + t.skipped }

func (t *tally) add(other *tally) {
	t.passed, t.failed, t.skipped = t.passed+other.passed, t.failed+other.failed, t.skipped+other.skipped
	t.skips = append(t.skips, other.skips...)
	maps.Copy(t.firecrackers, other.firecrackers)
	for runtime, c := range other.contracts {
		t.contract(runtime).add(c)
	}
}

// tested returns an error when another firecracker was tested.
func (t *tally) tested(path string) error {
	for _, firecracker := range sortedKeys(t.firecrackers) {
		if !strings.HasSuffix(firecracker, ": "+path) {
			return fmt.Errorf("tests were to test %s, and tested %s", path, firecracker)
		}
	}
	return nil
}

// suite is what is read of one stream.
type suite struct {
	tally   *tally
	output  map[string]*strings.Builder // of tests and packages that have not ended
	parents map[string]bool             // tests with subtests
	results []event
}

// read reads events to the end of the stream. What fails is printed whole when it ends; what passes is not.
func (t *tally) read(r io.Reader) {
	s := &suite{tally: t, output: map[string]*strings.Builder{}, parents: map[string]bool{}}
	lines := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil {
			s.take(e)
		} else if len(line) > 0 {
			fmt.Printf("%s", line)
		}
		if err != nil {
			break
		}
	}
	s.count()
}

func (s *suite) take(e event) {
	key := e.Package + "\x00" + e.Test
	switch e.Action {
	case "run":
		for i, char := range e.Test { // a subtest's own name may have slashes
			if char == '/' {
				s.parents[e.Package+"\x00"+e.Test[:i]] = true
			}
		}
	case "output", "build-output":
		b := s.output[key]
		if b == nil {
			b = &strings.Builder{}
			s.output[key] = b
		}
		b.WriteString(e.Output)
		s.note(e)
	case "pass", "fail", "skip":
		s.end(key, e)
	case "build-fail":
		fmt.Print(s.output[key])
	}
}

var testedLine = regexp.MustCompile(`^ +\w+\.go:\d+: ` + regexp.QuoteMeta(ring.Tested) + `(.+)\n$`)

// note takes from a test's log what the runner wants to know.
func (s *suite) note(e event) {
	if m := testedLine.FindStringSubmatch(e.Output); m != nil {
		s.tally.firecrackers[m[1]] = true
	}
	if runtime, _ := contractCase(e.Test); runtime != "" {
		if m := leftOutLine.FindStringSubmatch(e.Output); m != nil {
			s.tally.contract(runtime).left[caseName(m[1])] = m[2]
		}
	}
}

func (s *suite) end(key string, e event) {
	if e.Test != "" {
		s.results = append(s.results, e)
	}
	if e.Action == "fail" {
		fmt.Printf("FAIL %s %s\n%s\n", e.Package, e.Test, s.output[key])
		if e.Test == "" {
			s.endPackage(e.Package)
		}
	}
	if e.Test == "" && e.Action == "pass" {
		fmt.Printf("ok   %s %.1f s\n", e.Package, e.Elapsed)
	}
	delete(s.output, key)
}

// endPackage ends a package that failed: it did not build, it died, or a test of it failed. What was under way is printed too.
func (s *suite) endPackage(pkg string) {
	if !slices.ContainsFunc(s.results, func(e event) bool { return e.Package == pkg && e.Action == "fail" }) {
		s.tally.failed++
	}
	for _, key := range sortedKeys(s.output) {
		if test, ok := strings.CutPrefix(key, pkg+"\x00"); ok && test != "" {
			fmt.Printf("did not end: %s %s\n%s\n", pkg, test, s.output[key])
			delete(s.output, key)
		}
	}
}

// count counts the leaves. A parent that failed by itself counts too.
func (s *suite) count() {
	for _, e := range s.results {
		if s.parents[e.Package+"\x00"+e.Test] {
			if e.Action == "fail" && !s.childFailed(e) {
				s.tally.failed++
			}
			continue
		}
		switch e.Action {
		case "pass":
			s.tally.passed++
			if runtime, name := contractCase(e.Test); name != "" {
				s.tally.contract(runtime).passed[name] = true
			}
		case "fail":
			s.tally.failed++
		case "skip":
			s.tally.skipped++
			s.tally.skips = append(s.tally.skips, e.Test)
		}
	}
}

func (s *suite) childFailed(parent event) bool {
	return slices.ContainsFunc(s.results, func(e event) bool {
		return e.Package == parent.Package && e.Action == "fail" && strings.HasPrefix(e.Test, parent.Test+"/")
	})
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
