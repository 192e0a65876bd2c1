//go:build linux

// Command testrun runs all tests in their four rings and says how many there were. It fails when a test fails, when one is skipped in a ring that it was told to
// run, when a ring runs fewer tests than floor.json says, when rings 3 and 4 test another firecracker than was asked for, and when the real runtime passes fewer cases of
// the contract than it must.
//
// A test is a leaf: one without subtests. A top-level test with Contract in its name runs the contract of a runtime, which the rest of the name names: TestContractInmemory
// is inmemory's, TestRealContractBare the real one's.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// floorText has the least number of tests of each ring: what there are, less two percent.
//
//go:embed floor.json
var floorText []byte

func main() {
	rings := flag.String("rings", "1,2,3,4", "which rings to run")
	firecracker := flag.String("firecracker", os.Getenv("MICROVM_TEST_FIRECRACKER"), "another firecracker for rings 3 and 4, with its jailer beside it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, strings.Split(*rings, ","), *firecracker); err != nil {
		fmt.Fprintln(os.Stderr, "testrun:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rings []string, firecracker string) error {
	var floor map[string]int
	if err := json.Unmarshal(floorText, &floor); err != nil {
		return fmt.Errorf("floor.json: %w", err)
	}
	if firecracker != "" { // tests run in their packages' directories
		absolute, err := filepath.Abs(firecracker)
		if err != nil {
			return err
		}
		firecracker = absolute
	}
	total := newTally()
	var lines, problems []string
	for _, ring := range rings {
		fmt.Printf("\n== ring %s\n", ring)
		begin := time.Now()
		t, err := runner{firecracker}.ring(ctx, ring)
		if err != nil {
			problems = append(problems, fmt.Sprintf("ring %s: %v", ring, err))
		}
		lines = append(lines, t.lines(ring, time.Since(begin))...)
		problems = append(problems, t.problems(ring, floor[ring])...)
		total.add(t)
	}
	if slices.Contains(rings, "1") && slices.Contains(rings, "3") {
		problems = append(problems, total.fallsShort("real", "inmemory")...)
	}
	return report(total, lines, problems)
}

func report(total *tally, lines, problems []string) error {
	fmt.Println()
	for _, line := range append(lines, total.contractLines()...) {
		fmt.Println(line)
	}
	for _, problem := range problems {
		fmt.Println("problem:", problem)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", total.passed, total.failed, total.skipped)
	if len(problems) > 0 || total.failed > 0 {
		return fmt.Errorf("%d tests failed, %d problems", total.failed, len(problems))
	}
	return nil
}

// lines say what a ring ran.
func (t *tally) lines(ring string, took time.Duration) []string {
	lines := []string{fmt.Sprintf("ring %s: %d tests, %d skipped, %.1f min", ring, t.count(), t.skipped, took.Minutes())}
	for _, firecracker := range sortedKeys(t.firecrackers) {
		lines = append(lines, fmt.Sprintf("ring %s tested %s", ring, firecracker))
	}
	return lines
}

// problems are those of a ring that has run, beside tests that failed.
func (t *tally) problems(ring string, floor int) []string {
	var problems []string
	if t.skipped > 0 {
		problems = append(problems, fmt.Sprintf("ring %s: %d tests were skipped: %s", ring, t.skipped, strings.Join(t.skips, ", ")))
	}
	switch count := t.count(); {
	case count == 0:
		problems = append(problems, fmt.Sprintf("ring %s: no test has run", ring))
	case count < floor:
		problems = append(problems, fmt.Sprintf("ring %s: %d tests, and floor.json says at least %d", ring, count, floor))
	}
	return problems
}
