//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/tangle-network/microvm-runtime/image"
	"github.com/tangle-network/microvm-runtime/internal/setup"
)

const (
	imageRuns = 3
	chunk     = 16 << 20
	chunks    = 128 // 2 GiB
	childEnv  = "BENCH_IMAGE"
)

// imageLarge times the import of an image of 2 GiB in three layers, in a process of its own, against umoci's unpacking it to a directory; and says what that process needs in
// memory at most.
func imageLarge(ctx context.Context, _ setup.Parts) ([]figure, error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	layout := filepath.Join(dir, "layout")
	if err := writeLayout(layout); err != nil {
		return nil, err
	}
	var ours, theirs []time.Duration
	peak := figure{Name: "image_2gib_rss", Unit: "MiB", N: imageRuns}
	for i := range imageRuns {
		bundle := filepath.Join(dir, fmt.Sprint("bundle", i))
		mine, err := timed(func() error {
			mib, err := importInChild(ctx, filepath.Join(dir, fmt.Sprint("store", i)), layout)
			peak.ours = append(peak.ours, mib)
			return err
		})
		if err != nil {
			return nil, err
		}
		plain, err := timed(func() error {
			out, err := exec.CommandContext(ctx, "umoci", "unpack", "--image", layout+":large", bundle).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("umoci: %w: %s", err, out)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		ours, theirs = append(ours, mine), append(theirs, plain)
		os.RemoveAll(bundle)
	}
	peak.P50, peak.P99 = percentile(peak.ours, 50), percentile(peak.ours, 99)
	peak.Value = peak.P50
	return []figure{newFigure("image_2gib", ours, "umoci unpack", theirs), peak}, nil
}

// importInChild imports a layout in a process of its own and returns the most that it had in memory, in MiB.
func importInChild(ctx context.Context, store, layout string) (float64, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+store+":"+layout)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, err
	}
	var kib float64
	_, err = fmt.Sscan(string(out), &kib)
	return kib / 1024, err
}

// importChild is what that process does.
func importChild(order string) error {
	store, layout, _ := bytes.Cut([]byte(order), []byte(":"))
	s, err := image.Open(string(store))
	if err != nil {
		return err
	}
	if _, err := s.Import(context.Background(), string(layout), "large", nil); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(status) {
		if value, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			fmt.Println(string(bytes.Fields(value)[0]))
		}
	}
	return nil
}

// writeLayout makes an OCI layout of an image of three files, each in a layer of its own.
func writeLayout(dir string) error {
	blobs := filepath.Join(dir, "blobs/sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	put := func(kind string, content []byte) (map[string]any, error) {
		sum := fmt.Sprintf("%x", sha256.Sum256(content))
		return map[string]any{"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + sum, "size": len(content)}, os.WriteFile(filepath.Join(blobs, sum), content, 0o644)
	}
	putJSON := func(kind string, value any) (map[string]any, error) {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		return put(kind, text)
	}
	var layers []any
	var diffIDs []string
	for name, n := range map[string]int{"a": chunks / 4, "b": chunks / 4, "c": chunks / 2} {
		content, diffID, err := largeLayer(name, n)
		if err != nil {
			return err
		}
		layer, err := put("layer.v1.tar+gzip", content)
		if err != nil {
			return err
		}
		layers, diffIDs = append(layers, layer), append(diffIDs, diffID)
	}
	config, err := putJSON("config.v1+json", map[string]any{
		"os": "linux", "architecture": runtime.GOARCH, "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}, "config": map[string]any{},
	})
	if err != nil {
		return err
	}
	manifest, err := putJSON("manifest.v1+json", map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers})
	if err != nil {
		return err
	}
	manifest["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "large"}
	return errors.Join(saveJSON(filepath.Join(dir, "index.json"), map[string]any{"schemaVersion": 2, "manifests": []any{manifest}}),
		saveJSON(filepath.Join(dir, "oci-layout"), map[string]string{"imageLayoutVersion": "1.0.0"}))
}

// largeLayer is a layer of one file of n chunks that compress well. Each chunk is a gzip member of its own, so that it is compressed once.
func largeLayer(name string, n int) (content []byte, diffID string, err error) {
	pattern := make([]byte, chunk)
	for i := range 16 << 10 {
		pattern[i] = byte(rand.Uint32())
	}
	for done := 16 << 10; done < chunk; done *= 2 {
		copy(pattern[done:], pattern[:done])
	}
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(n) * chunk}); err != nil {
		return nil, "", err
	}
	hash := sha256.New()
	add := func(member, plain []byte) {
		hash.Write(plain)
		content = append(content, member...)
	}
	add(gzipped(head.Bytes()), head.Bytes())
	member := gzipped(pattern)
	for range n {
		add(member, pattern)
	}
	add(gzipped(make([]byte, 1024)), make([]byte, 1024))
	return content, fmt.Sprintf("sha256:%x", hash.Sum(nil)), nil
}

func gzipped(content []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(content) // a buffer takes all
	w.Close()
	return b.Bytes()
}
