//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/netlab"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// TestLabRunTellsWhatWasDenied: of what a command tries, its policy's one rule lets that through, and the rest is told with the flags that let it through.
func TestLabRunTellsWhatWasDenied(t *testing.T) {
	ring.Lab(t)
	lab := netlab.New(t)
	p := labEnvironment(t)
	t.Setenv("MICROVM_NAMESERVERS", netip.AddrPortFrom(netlab.DNS, 53).String())
	// microvm is in the namespace of the thread that starts it
	microvm := func(args ...string) (stdout, stderr string) {
		var out, errs strings.Builder
		cmd := exec.CommandContext(t.Context(), "microvm", args...)
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := lab.Host.Do(cmd.Start); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%q: %v\n%s", args, err, errs.String())
		}
		return out.String(), errs.String()
	}
	const try = `try() { timeout 3 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null && echo $1 is reached; }; `
	script := try + fmt.Sprintf("try echo.example 7; try www.example.com 80; try %s 7; true", netlab.Private)
	stdout, stderr := microvm("run", "--allow", netlab.Private.String()+":7", "--image", p.Base, "bash", "-c", script)
	if stdout != netlab.Private.String()+" is reached\n" {
		t.Errorf("with one rule: %q", stdout)
	}
	for _, want := range []string{"microvm: denied: echo.example (--allow echo.example opens it)\n", "microvm: denied: www.example.com (--allow www.example.com opens it)\n"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("it does not say %q, but\n%s", want, stderr)
		}
	}
	stdout, stderr = microvm("run", "--allow", "echo.example", "--image", p.Base, "bash", "-c", script)
	if stdout != "echo.example is reached\n" {
		t.Errorf("with another: %q", stdout)
	}
	if want := fmt.Sprintf("microvm: denied: tcp %[1]s:7 (--allow %[1]s:7 opens it)\n", netlab.Private); !strings.Contains(stderr, want) || strings.Contains(stderr, "echo.example") {
		t.Errorf("it does not say %q and nothing of what was allowed, but\n%s", want, stderr)
	}
	microvm("purge", "--yes")
}
