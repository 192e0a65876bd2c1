//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
)

func (r *rig) claim(held, name string) *microvm.VM {
	r.t.Helper()
	vm, _, err := r.runtime.Claim(within(r.t), held, name, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return vm
}

// holding runs a test bare and jailed with a snapshot one/warm of a machine that has counted, and is gone.
func holding(t *testing.T, test func(t *testing.T, r *rig)) { stocking(t, 0, test) }

// hold restores a machine that waits to be claimed.
func (r *rig) hold(name string) *microvm.VM {
	return r.restore("one/warm", name, &microvm.RestoreOptions{Hold: true})
}

// TestRealClaim: a held machine goes on where its snapshot was taken, as its claimer's, whoever had it restored.
func TestRealClaim(t *testing.T) {
	holding(t, func(t *testing.T, r *rig) {
		held := r.hold("ready")
		r.reopen()
		if report, err := r.runtime.Recover(within(t), nil); err != nil || len(report.Failed()) > 0 {
			t.Errorf("recover: %+v, %v", report, err)
		}
		vm := r.claim("ready", "job")
		if info := r.info(vm); vm.UID() != held.UID() || info.Name != "job" || info.State != microvm.StateRunning || info.Held {
			t.Errorf("it is %+v", info)
		}
		r.goesOn(vm, "one/warm")
		r.destroy(vm)
	})
}

// touchedFrom is the first point of Claim from which a machine can't be held again.
const touchedFrom = "claim/resume:before"

// TestRealClaimFailsAtEveryStep: the machine is held as it was, or nothing is left of it.
func TestRealClaimFailsAtEveryStep(t *testing.T) {
	holding(t, func(t *testing.T, r *rig) {
		points := r.points("claim")
		empty := r.census()
		for i, point := range points {
			held := r.hold("ready")
			before := r.census()
			r.failAt(point, errInjected)
			if _, _, err := r.runtime.Claim(within(t), "ready", "job", nil); !errors.Is(err, errInjected) {
				t.Errorf("%s: %v, want the injected error", point, err)
			}
			r.setHook(nil)
			if i >= slices.Index(points, touchedFrom) {
				if _, err := held.Info(within(t)); !errors.Is(err, microvm.ErrNotFound) {
					t.Errorf("%s: the machine is there still: %v", point, err)
				}
				r.unchanged(empty)
				continue
			}
			r.unchanged(before)
			vm := r.claim("ready", "job")
			r.goesOn(vm, "one/warm")
			r.destroy(vm)
		}
	})
}

// TestRealDriverKilledInClaim: a machine that may be half somebody's is nobody's.
func TestRealDriverKilledInClaim(t *testing.T) {
	holding(t, func(t *testing.T, r *rig) {
		points := r.points("claim")
		empty := r.census()
		for _, point := range points {
			uid := r.hold("ready").UID()
			r.die(order{Options: childOptionsOf(r.options), Verb: "claim", Name: "job", KillAt: point})
			r.reopen()
			report, err := r.runtime.Recover(within(t), nil)
			if err != nil || len(report.Failed()) > 0 {
				t.Errorf("%s: recover: %v, %+v", point, err, report)
			}
			var info microvm.Info
			held, err := r.runtime.VM(within(t), uid)
			if err == nil {
				info = r.info(held)
			}
			switch point {
			case "claim/record:before":
				if err != nil || !info.Held || info.Name != "ready" {
					t.Errorf("%s: %+v, %v: want it held", point, info, err)
				}
				r.destroy(r.claim("ready", "job"))
			case "claim/commit:after":
				if err != nil || info.Held || info.Name != "job" || info.State != microvm.StateRunning {
					t.Errorf("%s: %+v, %v: want it claimed", point, info, err)
				}
				r.destroy(held)
			default:
				if !errors.Is(err, microvm.ErrNotFound) {
					t.Errorf("%s: %+v, %v: want nothing", point, info, err)
				}
			}
			r.unchanged(empty)
		}
	})
}

// TestRealContextEndsInClaim: the machine is claimed, held, or nothing.
func TestRealContextEndsInClaim(t *testing.T) {
	holding(t, func(t *testing.T, r *rig) {
		points := r.points("claim")
		empty := r.census()
		for _, point := range points {
			held := r.hold("ready")
			ctx, cancel := context.WithCancel(t.Context())
			r.cancelAt(point, cancel)
			_, _, err := r.runtime.Claim(ctx, "ready", "job", nil)
			cancel()
			r.setHook(nil)
			info, there := held.Info(within(t))
			if err == nil && (there != nil || info.Held || info.State != microvm.StateRunning) || err != nil && there == nil && !info.Held {
				t.Errorf("%s: %v, then %+v, %v", point, err, info, there)
			}
			if there == nil {
				r.destroy(held)
			}
			r.unchanged(empty)
		}
	})
}

// TestRealNobodyKeepsThem: where there is no agent, variables and secrets are refused before anything is touched, not forgotten.
func TestRealNobodyKeepsThem(t *testing.T) {
	holding(t, func(t *testing.T, r *rig) {
		r.hold("ready")
		before := r.census()
		for field, o := range map[string]microvm.ClaimOptions{"Env": {Env: map[string]string{"A": "b"}}, "Secrets": {Secrets: map[string]string{"a": "b"}}} {
			if _, _, err := r.runtime.Claim(within(t), "ready", "job", &o); !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), "ClaimOptions."+field) {
				t.Errorf("claim: %v", err)
			}
			if _, _, err := r.runtime.Restore(within(t), "one/warm", "two", &microvm.RestoreOptions{Env: o.Env, Secrets: o.Secrets}); !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), "RestoreOptions."+field) {
				t.Errorf("restore: %v", err)
			}
		}
		r.unchanged(before)
		r.destroy(r.claim("ready", "job"))
	})
}

// TestRealTwoProcessesClaim: of those who claim a machine one gets it.
func TestRealTwoProcessesClaim(t *testing.T) {
	holding(t, func(t *testing.T, r *rig) {
		for n := range 5 {
			held := r.hold("ready")
			said := r.together(order{Verb: "claim", Name: fmt.Sprint("a-", n)}, order{Verb: "claim", Name: fmt.Sprint("b-", n)}, order{Verb: "claim", Name: fmt.Sprint("c-", n)})
			words := slices.Sorted(slices.Values(slices.Concat(said...)))
			if !slices.Equal(words, []string{"not found", "not found", "ok"}) {
				t.Errorf("%q", words)
			}
			if info := r.info(held); info.State != microvm.StateRunning || !strings.HasSuffix(info.Name, fmt.Sprint("-", n)) {
				t.Errorf("it is %+v", info)
			}
			r.destroy(held)
		}
	})
}
