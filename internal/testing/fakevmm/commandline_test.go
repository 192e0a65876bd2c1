//go:build linux

package fakevmm

import (
	"strings"
	"testing"
)

// commands are command lines, in a directory with a configuration that ends by itself.
var commands = [][]string{
	{"--version"}, {"--version", "--nonsense"}, {"--nonsense"}, {"nonsense"}, {""}, {"-id", "a"}, {"--id=a"}, {"--id"}, {"--id", "a", "--id"}, {"--no-api"}, {"--no-api", "--nonsense"}, {"--version", "--version"},
	{"--level", "Info", "--log-path"}, {"--nonsense", "--"}, {"--version=true"}, {"--enable-pci"}, {"--no-seccomp", "--seccomp-filter", "none"},
	{"--level", "nonsense"}, {"--level", ""}, {"--log-path", "none", "--level", "nonsense"}, {"--log-path", "none", "--level", "Off"}, {"--log-path", "."}, {"--log-path", ""},
	{"--id", "a_b"}, {"--id", ""}, {"--id", strings.Repeat("a", 65)}, {"--id", "a_b", "--level", "nonsense"},
	{"--config-file", "none"}, {"--config-file", "none", "--log-path", "none"}, {"--config-file", "none", "--metrics-path", "none"}, {"--config-file", "none", "--api-sock", "disk"}, {"--config-file", "."},
	{"--config-file", "config", "--log-path", "log", "--config-file", "config"},
	{"--api-sock", "disk"}, {"--api-sock", "disk", "--config-file", "config", "--log-path", "log"}, {"--api-sock", "none/api"}, {"--api-sock", strings.Repeat("x", 120)},
	{"--api-sock", "none/api", "--config-file", "config", "--log-path", "log"}, {"--api-sock", "disk", "--config-file", "broken"}, {"--api-sock", "api", "--config-file", "broken"},
	{"--api-sock", "api", "--config-file", "disk"}, {"--api-sock", "api", "--config-file", "config"}, {"--api-sock", "api", "--config-file", "config", "--log-path", "log", "--id", "a"},
	noAPI(), noAPI("--log-path", "none"), noAPI("--log-path", "log", "--level", "nonsense"), noAPI("--log-path", "log", "--level", "Info", "--id", "a-1"), noAPI("--id", "ü"), noAPI("--id", "-a"),
	noAPI("--id", "--no-api"), noAPI("--no-api"), noAPI("--metrics-path", "none"), noAPI("--metrics-path", "."), noAPI("--metrics-path", "metrics"), noAPI("--no-seccomp"), noAPI("--boot-timer"),
	noAPI("--", "--nonsense"), noAPI("--level", "Off"), noAPI("--level", "error"), noAPI("--level", "WARNING"), noAPI("--start-time-us", "1", "--start-time-cpu-us", "2", "--parent-cpu-time-us", "3"),
}

func noAPI(more ...string) []string {
	return append([]string{"--no-api", "--config-file", "config"}, more...)
}

// A command line is taken, and refused, alike, and what it asks for is done in the same order.
func TestRealCommandLinesAlike(t *testing.T) {
	l := newLab(t)
	inParallel(commands, func(args []string) { l.runAlike(t, configurations["the least"], args) })
}
