//go:build linux

package firecracker

import (
	"context"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
)

// eventPatience is how long an emulated guest may take to tell.
const eventPatience = 2 * time.Minute

// awaitEvent waits until the guest tells of an event of a type; others are passed over.
func awaitEvent(t *testing.T, vm *microvm.VM, want guest.EventType) guest.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), eventPatience)
	defer cancel()
	events, err := guest.Events(ctx, vm, nil)
	if err != nil {
		t.Fatal(err)
	}
	for event, err := range events {
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v %+v %+v", event, event.OOM, event.Disk)
		if event.Type == want {
			return event
		}
	}
	t.Fatalf("no %s is told", want)
	return guest.Event{}
}

// testWatch watches a directory of the guest's overlay, and a file of it that another replaces.
func testWatch(t *testing.T, vm *microvm.VM) {
	ctx, cancel := context.WithTimeout(t.Context(), eventPatience)
	defer cancel()
	sh(t, vm, "mkdir /watched && echo before >/watched/f")
	for path, want := range map[string]string{"/watched": "new", "/watched/f": "f", "/etc": "hosts.new"} {
		events, err := guest.Watch(ctx, vm, path)
		if err != nil {
			t.Fatal(err)
		}
		sh(t, vm, "echo >/watched/new; echo after >/watched/g; mv /watched/g /watched/f; echo >/etc/hosts.new")
		seen := false
		for event, err := range events {
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if seen = event.Name == want && (event.Kind == guest.FileWritten || event.Kind == guest.FileRenamed); seen {
				break
			}
		}
		if !seen {
			t.Errorf("%s: nothing is told of %s", path, want)
		}
	}
}
