//go:build linux

package guest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/transcript"
	"github.com/tangle-network/microvm-runtime/internal/testing/transcript/scenes"
)

// TestOldAgents asks agents of all recorded versions for all that this host can ask: what one had works, and what it lacked is ErrUnsupported, with the remedy.
func TestOldAgents(t *testing.T) {
	all, err := transcript.All()
	if err != nil || len(all) < 7 {
		t.Fatalf("%d transcripts, %v", len(all), err)
	}
	for _, old := range all {
		features, err := old.Features()
		if err != nil {
			t.Fatal(err)
		}
		for _, scene := range scenes.All() {
			t.Run(old.Name+"/"+scene.Name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				a := old.Agent(scene.Name)
				defer a.Wait()
				has := scene.Feature == "" || slices.Contains(features, scene.Feature)
				err := scene.Run(ctx, a, transcript.Dir)
				cancel()
				switch {
				case has && err != nil:
					t.Errorf("what it had does not work: %v", err)
				case !has && (!errors.Is(err, microvm.ErrUnsupported) || !strings.Contains(err.Error(), "start the machine again")):
					t.Errorf("what it lacked is %v", err)
				}
			})
		}
	}
}
