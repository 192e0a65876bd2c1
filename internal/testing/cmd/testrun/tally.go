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
	contracts               map[string]int
}

func newTally() *tally { return &tally{contracts: map[string]int{}} }

func (t *tally) add(other *tally) {
	t.passed, t.failed, t.skipped = t.passed+other.passed, t.failed+other.failed, t.skipped+other.skipped
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
		if i := strings.LastIndexByte(e.Test, '/'); i > 0 {
			s.parents[e.Package+"\x00"+e.Test[:i]] = true
		}
	case "output", "build-output":
		b := s.output[key]
		if b == nil {
			b = &strings.Builder{}
			s.output[key] = b
		}
		b.WriteString(e.Output)
	case "pass", "fail", "skip":
		s.end(key, e)
	case "build-fail":
		fmt.Print(s.output[key])
	}
}

func (s *suite) end(key string, e event) {
	if e.Test != "" {
		s.results = append(s.results, e)
	}
	if e.Action == "fail" {
		fmt.Printf("FAIL %s %s\n%s\n", e.Package, e.Test, s.output[key])
		if e.Test == "" && !s.failedIn(e.Package) { // it did not build, or died
			s.tally.failed++
		}
	}
	if e.Test == "" && e.Action == "pass" {
		fmt.Printf("ok   %s %.1f s\n", e.Package, e.Elapsed)
	}
	delete(s.output, key)
}

func (s *suite) failedIn(pkg string) bool {
	return slices.ContainsFunc(s.results, func(e event) bool { return e.Package == pkg && e.Action == "fail" })
}

var contractName = regexp.MustCompile(`^Test(Real|Lab)?Contract(\w*)`)

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
			if m := contractName.FindStringSubmatch(e.Test); m != nil && strings.Contains(e.Test, "/") {
				runtime := "real"
				if m[1] == "" {
					runtime = strings.ToLower(m[2])
				}
				s.tally.contracts[runtime]++
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
