//go:build linux

package firecracker

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// TestPlannedDisks: which disks a machine has, in the order in which its guest sees them. The paths and ids are frozen.
func TestPlannedDisks(t *testing.T) {
	drives := []microvm.Drive{{Path: "/a"}, {Path: "/b", ReadOnly: true}}
	const own, beside = "base=img/base:ro layer=layer", "drive0=drive-0 drive1=img/drive-1:ro"
	for name, c := range map[string]struct {
		record state.Record
		want   string
		word   bool // that says where the layer is
	}{
		"diskless":        {state.Record{Spec: microvm.Spec{Diskless: true, Drives: drives}}, beside, false},
		"layer":           {state.Record{Agent: true, Spec: microvm.Spec{LayerMiB: 64, Drives: drives}}, own + " " + beside, false},
		"no drives":       {state.Record{Agent: true, Spec: microvm.Spec{LayerMiB: 64}}, own, false},
		"layer in memory": {state.Record{Agent: true, Spec: microvm.Spec{LayerInMemory: true, KernelArgs: "own", Drives: drives}}, "base=img/base:ro " + beside, true},
		"rootfs":          {state.Record{Spec: microvm.Spec{Rootfs: "/r", Drives: drives}}, "base=img/base:ro:root " + beside, false},
		"private rootfs":  {state.Record{Spec: microvm.Spec{Rootfs: "/r", RootfsWritable: true, Drives: drives}}, "layer=layer:root " + beside, false},
	} {
		p := planOf(&c.record)
		var got []string
		for _, d := range p.drives {
			text := d.id + "=" + d.path
			for _, flag := range []struct {
				set  bool
				name string
			}{{d.readOnly, ":ro"}, {d.root, ":root"}} {
				if flag.set {
					text += flag.name
				}
			}
			if d.durable != (strings.HasPrefix(d.id, "drive") && !d.readOnly) {
				t.Errorf("%s: durable is %v for %s", name, d.durable, d.id)
			}
			got = append(got, text)
		}
		if all := strings.Join(got, " "); all != c.want {
			t.Errorf("%s: disks %s, want %s", name, all, c.want)
		}
		if words := strings.Fields(p.kernelArgs); slices.Contains(words, layerInMemory) != c.word || c.record.Spec.KernelArgs != "" && words[len(words)-1] != "own" {
			t.Errorf("%s: kernel's command line %q", name, p.kernelArgs)
		}
	}
}

// TestRateLimitIsOfOwnDisks: a limit is each disk's to itself.
func TestRateLimitIsOfOwnDisks(t *testing.T) {
	own, its := &microvm.RateLimit{OpsPerSecond: 1}, &microvm.RateLimit{OpsPerSecond: 2}
	p := planOf(&state.Record{Agent: true, Spec: microvm.Spec{LayerMiB: 64, DiskLimit: own, Drives: []microvm.Drive{{Path: "/a", Limit: its}, {Path: "/b"}}}})
	var got []string
	for _, d := range p.drives {
		got = append(got, fmt.Sprint(d.id, " ", d.limit == own, d.limit == its))
	}
	if want := "base true false, layer true false, drive0 false true, drive1 false false"; strings.Join(got, ", ") != want {
		t.Errorf("%q, want %q", strings.Join(got, ", "), want)
	}
}
