package reportbridge

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	// sumsFile lies beside the program and has the sums of all other files, as sha256sum -c reads them.
	sumsFile = "SHA256SUMS"
	// programMax bounds what is unpacked, in bytes; the program has about 40 MB.
	programMax = 256 << 20
)

// CheckProgram compares every file of the folder that holds the program without Python with its SHA-256.
// The program lies at path, and sum is the SHA-256 of the file SHA256SUMS beside it, in hexadecimal
// digits: keep it in your own sources. A file that is missing, changed or was added is an error.
func CheckProgram(path, sum string) error {
	folder := filepath.Dir(path)
	listing, err := os.ReadFile(filepath.Join(folder, sumsFile))
	if err != nil {
		return fmt.Errorf("report-bridge: %w", err)
	}
	if found := sha256.Sum256(listing); !strings.EqualFold(hex.EncodeToString(found[:]), sum) {
		return fmt.Errorf("report-bridge: %s in %s has the SHA-256 %x, not %s", sumsFile, folder, found, sum)
	}
	sums := map[string]string{}
	for lines := bufio.NewScanner(bytes.NewReader(listing)); lines.Scan(); {
		digits, name, _ := strings.Cut(lines.Text(), "  ")
		sums[filepath.FromSlash(name)] = digits
	}
	err = filepath.WalkDir(folder, func(place string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, place)
		if err != nil || name == sumsFile {
			return err
		}
		if err := checkFile(place, entry, sums[name]); err != nil {
			return err
		}
		delete(sums, name)
		return nil
	})
	if err != nil {
		return fmt.Errorf("report-bridge: %w", err)
	}
	for name := range sums {
		return fmt.Errorf("report-bridge: %s is missing in %s", name, folder)
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("report-bridge: %w", err)
	}
	return nil
}

func checkFile(place string, entry fs.DirEntry, sum string) error {
	if sum == "" || !entry.Type().IsRegular() {
		return fmt.Errorf("%s does not belong there", place)
	}
	file, err := os.Open(place)
	if err != nil {
		return err
	}
	defer file.Close()
	found := sha256.New()
	if _, err := io.Copy(found, file); err != nil {
		return err
	}
	if hex.EncodeToString(found.Sum(nil)) != sum {
		return fmt.Errorf("%s was changed", place)
	}
	return nil
}

// UnpackProgram unpacks the program without Python and returns its path, for Options.Path. The archive is
// report-bridge-VERSION-PLATFORM.tar.gz as made by the project, such as embedded with go:embed; sum is that of
// CheckProgram, which is asked each time. In folder each version has a place of its own, which bots that start
// together may share; a copy that was changed is an error, until it is removed.
func UnpackProgram(archive []byte, folder, sum string) (string, error) {
	place := filepath.Join(folder, "report-bridge-"+strings.ToLower(sum))
	path := filepath.Join(place, CommandName, CommandName)
	if _, err := os.Stat(place); err == nil {
		return path, CheckProgram(path, sum)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", fmt.Errorf("report-bridge: %w", err)
	}
	work, err := os.MkdirTemp(folder, ".unpack-")
	if err != nil {
		return "", fmt.Errorf("report-bridge: %w", err)
	}
	defer os.RemoveAll(work)
	if err := unpack(archive, work); err != nil {
		return "", fmt.Errorf("report-bridge: cannot unpack: %w", err)
	}
	if err := CheckProgram(filepath.Join(work, CommandName, CommandName), sum); err != nil {
		return "", err
	}
	if err := os.Chmod(work, 0o755); err != nil {
		return "", fmt.Errorf("report-bridge: %w", err)
	}
	// A rename onto a folder that has something in it fails: another bot was first, and its copy is checked.
	if err := os.Rename(work, place); err != nil {
		if _, missing := os.Stat(place); missing != nil {
			return "", fmt.Errorf("report-bridge: %w", err)
		}
	}
	return path, CheckProgram(path, sum)
}

func unpack(archive []byte, folder string) error {
	packed, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return err
	}
	members := tar.NewReader(io.LimitReader(packed, programMax))
	for {
		member, err := members.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !filepath.IsLocal(member.Name) {
			return fmt.Errorf("%q leads out of the folder", member.Name)
		}
		place := filepath.Join(folder, member.Name)
		switch member.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(place, 0o755)
		case tar.TypeReg:
			err = writeFile(place, members, member.FileInfo().Mode().Perm())
		default:
			err = fmt.Errorf("%q is neither a file nor a folder", member.Name)
		}
		if err != nil {
			return err
		}
	}
}

func writeFile(place string, content io.Reader, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(place, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}
