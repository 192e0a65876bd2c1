//go:build linux

package firecracker

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// MinVersion is the oldest Firecracker that the driver works with.
const MinVersion = "1.7.0"

// BinaryVersion asks a firecracker or jailer binary for its version, such as "1.12.1".
func BinaryVersion(path string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	_, version, ok := strings.Cut(first, " v")
	if !ok {
		return "", fmt.Errorf("%s --version: %.60q is no version", path, first)
	}
	return strings.TrimSpace(version), nil
}

// VersionRemedy says what to do about a version, "" when nothing is due.
func VersionRemedy(version string) string {
	var major, minor, patch int
	if _, err := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); err != nil {
		return "use a release: this is no release's version"
	}
	switch {
	case major < 1 || major == 1 && minor < 7:
		return "use " + MinVersion + " or later"
	case major == 1 && minor == 16 && patch == 0:
		return "use 1.16.1 or later: 1.16.0 loses vsock after a restore"
	}
	return ""
}
