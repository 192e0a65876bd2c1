//go:build linux

// Command testrun runs all tests in their four rings and says how many there were. It fails when a test fails, when one is skipped in a ring that it was told to
// run, and when a ring runs fewer tests than floor.json says.
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
	"strings"
	"time"
)

//go:embed floor.json
var floorText []byte

func main() {
	rings := flag.String("rings", "1,2,3,4", "which rings to run")
	firecracker := flag.String("firecracker", "", "another firecracker for rings 3 and 4, with its jailer beside it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, strings.Split(*rings, ","), *firecracker); err != nil {
		fmt.Fprintln(os.Stderr, "testrun:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rings []string, firecracker string) error {
	var floor map[string]int
	if err := json.Unmarshal(floorText, &floor); err != nil {
		return err
	}
	if firecracker != "" {
		os.Setenv("MICROVM_TEST_FIRECRACKER", firecracker)
	}
	total := &tally{}
	contracts := map[string]int{}
	var lines, problems []string
	for _, ring := range rings {
		fmt.Printf("\n== ring %s\n", ring)
		begin := time.Now()
		t, err := runRing(ctx, ring)
		if err != nil {
			problems = append(problems, fmt.Sprintf("ring %s: %v", ring, err))
		}
		count := t.passed + t.failed + t.skipped
		lines = append(lines, fmt.Sprintf("ring %s: %d tests, %d skipped, %.1f min", ring, count, t.skipped, time.Since(begin).Minutes()))
		if t.skipped > 0 {
			problems = append(problems, fmt.Sprintf("ring %s: %d tests were skipped: %s", ring, t.skipped, strings.Join(t.skips, ", ")))
		}
		if count < floor[ring] {
			problems = append(problems, fmt.Sprintf("ring %s: %d tests, and floor.json says at least %d", ring, count, floor[ring]))
		}
		total.add(t)
		for runtime, n := range t.contracts {
			contracts[runtime] += n
		}
	}
	fmt.Println()
	for _, line := range lines {
		fmt.Println(line)
	}
	for _, runtime := range sortedKeys(contracts) {
		fmt.Printf("contract: %s %d cases\n", runtime, contracts[runtime])
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
