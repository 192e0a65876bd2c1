//go:build linux

// Command bench measures, and prints one line a figure. BENCH_JSON names a file for the figures as JSON, with the raw samples beside it; BENCH_CURVES one for the points of
// those that depend on a number, with a drawing of them beside it (.svg); -only chooses figures by a regular expression.
//
// Absolute times say what this machine is; ratios compare two ways of doing the same in one process, interleaved. A ratio
// that has a limit, and exceeds it, is an error once all is measured.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/internal/setup"
)

// figures are all that can be measured, in order.
var figures = []struct {
	name    string
	measure func(context.Context, setup.Parts) ([]figure, error)
}{
	{"cold_start_bare create_bare", coldStartBare},
	{"restore_fresh", restoreFresh},
	{"restore_waiting_vmm", restoreWaiting},
	{"warm_handout", warmHandout},
	{"fork_100 fork_100_pss", forkHundred},
	{"uffd_fault uffd_restore_warm uffd_restore_cold file_restore_cold", pageByPage},
	{"guest_exec guest_echo guest_stream guest_copy guest_copy_from", guestLoopback},
	{"agent_ready", agentReady},
	{"image_2gib image_2gib_rss", imageLarge},
	{"policy_update", policyUpdate},
	{"jailed_life_1000 info_1000 list_1000", scale},
	{"slot_make slot_take slot_return", networkSlots},
}

func main() {
	firecracker.Helper()
	if order := os.Getenv(childEnv); order != "" {
		if err := importChild(order); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	only := flag.String("only", "", "regular expression of figures")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string) error {
	chosen, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	cache, err := setup.DefaultCache()
	if err != nil {
		return err
	}
	parts, err := setup.Find(cache)
	if err != nil {
		return err
	}
	results := []figure{}
	var exceeded []error
	for _, f := range figures {
		if !chosen.MatchString(f.name) {
			continue
		}
		measured, err := f.measure(ctx, parts)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		for _, result := range measured {
			if chosen.MatchString(result.Name) {
				fmt.Println(result)
				results, exceeded = append(results, result), append(exceeded, result.within())
			}
		}
	}
	return errors.Join(append(exceeded, save(results))...)
}

// save writes the figures, the raw samples to a file beside them, and the curves.
func save(results []figure) error {
	raw, curves := map[string]map[string][]float64{}, map[string]*curve{}
	for _, r := range results {
		raw[r.Name] = map[string][]float64{"ours": r.ours, "against": r.theirs}
		if r.curve != nil {
			curves[r.Name] = r.curve
		}
	}
	var errs []error
	if path := os.Getenv("BENCH_JSON"); path != "" {
		errs = append(errs, saveJSON(path, results), saveJSON(path+".raw", raw))
	}
	if path := os.Getenv("BENCH_CURVES"); path != "" {
		errs = append(errs, saveJSON(path, curves), draw(path+".svg", curves))
	}
	return errors.Join(errs...)
}

func saveJSON(path string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
