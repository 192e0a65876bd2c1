//go:build linux

package firecracker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
)

// emptyLayer returns the ready-made empty layer of a size, which is made once.
func (d *driver) emptyLayer(ctx context.Context, sizeMiB int) (string, error) {
	file, err := d.store.Make(ctx, "ext4\x00"+strconv.Itoa(sizeMiB), func(temp string) error {
		return disk.EmptyExt4(temp, sizeMiB)
	})
	return file.Path, err
}

// agentPlaces are where the agent is looked for.
func (d *driver) agentPlaces() []string {
	if d.options.Agent != "" {
		return []string{d.options.Agent}
	}
	places := []string{"/usr/local/lib/microvm/agent"}
	if self, err := os.Executable(); err == nil {
		places = append([]string{filepath.Join(filepath.Dir(self), "microvm-agent")}, places...)
	}
	return places
}

func (d *driver) findAgent() (string, error) {
	places := d.agentPlaces()
	for _, place := range places {
		if info, err := os.Stat(place); err == nil && info.Mode().IsRegular() {
			return place, nil
		}
	}
	return "", fmt.Errorf("%w: Options.Agent: no guest agent at %q (go install …/cmd/microvm-agent, or set MICROVM_AGENT_BIN)", microvm.ErrInvalid, places)
}
