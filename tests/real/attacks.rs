//! The known attacks on container runtimes, class by class, and the tests that try them. A test that is renamed or gone
//! without a word here fails this one.

use std::path::Path;

const CLASSES: [(&str, &[(&str, &str)]); 23] = [
    (
        "the runtime's program overwritten through /proc/self/exe",
        &[
            ("tests/real/engine/ways_out.rs", "the_shims_program_is_not_overwritten_through_proc_self_exe"),
            ("tests/real/engine/attacks.rs", "the_first_process_of_shared_processes_has_nothing_to_take"),
        ],
    ),
    (
        "descriptors that leak, and ways through them",
        &[
            ("tests/real/engine/ways_out.rs", "no_descriptor_is_left_to_a_container_or_a_command"),
            ("tests/real/engine/attacks.rs", "a_working_directory_does_not_lead_out_through_a_descriptor"),
            ("tests/real/engine/attacks.rs", "a_working_directory_does_not_lead_a_command_out_through_a_descriptor"),
            ("tests/real/engine/attacks.rs", "a_command_is_not_found_through_a_descriptor"),
            ("tests/real/oci/mod.rs", "no_descriptor_of_the_callers_is_left_to_a_container_or_a_command"),
        ],
    ),
    (
        "masked paths, /dev/console and /dev/null led elsewhere by links",
        &[
            ("tests/real/engine/ways_out.rs", "links_in_place_of_devices_lead_nowhere"),
            ("tests/real/engine/ways_out.rs", "masks_are_put_where_they_belong_and_nowhere_else"),
            ("tests/real/engine/everyday.rs", "a_file_may_be_hidden_behind_the_hosts_null_device"),
            ("tests/real/engine/attacks.rs", "the_hosts_device_nodes_cannot_be_changed_from_a_container"),
        ],
    ),
    (
        "images whose /dev, /proc or /sys is a link",
        &[
            ("tests/real/engine.rs", "images_with_links_for_system_directories_are_refused"),
            ("tests/real/engine.rs", "a_mount_through_a_link_of_the_image_stays_in_the_container"),
        ],
    ),
    (
        "mount destinations swapped between containers that share a volume",
        &[("tests/real/engine/ways_out.rs", "a_mount_destination_that_is_swapped_meanwhile_stays_in_the_container")],
    ),
    (
        "subPath through links, swapped while the container starts",
        &[
            ("tests/real/agent_volumes.rs", "a_sub_path_that_changes_meanwhile_leads_nowhere_else"),
            ("src/agent/beneath.rs", "nothing_is_read_written_or_removed_through_a_link"),
        ],
    ),
    ("escape through a writable cgroup file system", &[("tests/real/engine/ways_out.rs", "a_cgroup_file_system_is_no_way_out")]),
    ("inheritable capabilities", &[("tests/real/engine/ways_out.rs", "no_capability_is_inherited")]),
    (
        "user ids that overflow into root",
        &[
            ("tests/real/engine/ways_out.rs", "a_user_beyond_all_ids_is_not_root"),
            ("src/shim/account.rs", "an_id_that_means_stay_as_you_are_is_refused"),
            ("src/cri/client/runtime.rs", "the_images_user_is_a_number_a_name_or_root"),
        ],
    ),
    (
        "devices opened by nodes of the container's own",
        &[("tests/real/engine/attacks.rs", "a_device_is_opened_by_no_node_that_a_container_makes")],
    ),
    ("tar entries through `..` and by absolute paths", &[("tests/real/image.rs", "hostile_entries_are_refused")]),
    (
        "tar entries through links, hard and symbolic",
        &[
            ("tests/real/image.rs", "symlinks_of_the_layer_lead_nowhere_outside"),
            ("tests/real/image.rs", "a_file_replaces_a_symlink_and_does_not_follow_it"),
            ("tests/real/image.rs", "a_hard_link_to_a_symlink_links_the_link"),
        ],
    ),
    (
        "whiteouts of what is none of the layer's",
        &[("tests/real/image.rs", "whiteouts_are_overlays_own"), ("tests/real/image.rs", "hostile_entries_are_refused")],
    ),
    (
        "decompression bombs, bombs of entries and inodes",
        &[("tests/real/image.rs", "bombs_are_refused"), ("tests/real/image.rs", "a_layer_does_not_take_the_last_inodes_of_a_disk")],
    ),
    (
        "bombs of indexes and documents, answers without an end",
        &[
            ("tests/real/hostile_registry.rs", "endless_documents_are_read_to_their_bound_only"),
            ("tests/real/hostile_registry.rs", "indexes_that_lead_to_indexes_are_followed_to_a_bound_only"),
            ("tests/real/hostile_registry.rs", "wrong_documents_are_not_believed"),
            ("src/runtime/image/manifest.rs", "lists_have_an_end"),
        ],
    ),
    (
        "credentials led to others by redirects and challenges",
        &[
            ("tests/real/hostile_registry.rs", "redirects_end_and_take_no_secret_along"),
            ("tests/real/hostile_registry.rs", "nobody_but_the_registry_is_told_who_we_are"),
        ],
    ),
    (
        "log files replaced by links",
        &[
            ("tests/real/engine/ways_out.rs", "a_log_that_is_replaced_by_a_link_leads_nowhere"),
            ("tests/real/engine.rs", "links_in_the_log_directory_are_not_followed"),
            ("src/agent/node_api/logs.rs", "a_link_in_the_log_directory_is_not_followed"),
        ],
    ),
    (
        "bombs of processes, memory, logs and files in one pod",
        &[
            ("tests/real/engine/bombs.rs", "a_fork_bomb_fills_its_own_pod_only"),
            ("tests/real/engine/bombs.rs", "a_memory_bomb_takes_its_own_memory_only"),
            ("tests/real/engine/bombs.rs", "a_log_bomb_fills_no_more_than_its_share"),
            ("tests/real/engine/bombs.rs", "a_disk_bomb_stops_no_other_pod_and_no_daemon"),
            ("tests/real/engine.rs", "a_log_that_cannot_be_written_does_not_hold_the_container_up"),
        ],
    ),
    (
        "memory exhaustion by exec and attach",
        &[
            ("tests/real/engine/attacks.rs", "memory_is_not_exhausted_by_what_a_command_says"),
            ("tests/real/engine/attacks.rs", "memory_is_not_exhausted_by_who_attaches"),
            ("src/cri/streaming/tests.rs", "memory_exhaustion_by_exec_and_attach"),
        ],
    ),
    ("terminals led elsewhere by links", &[("tests/real/engine/attacks.rs", "a_console_link_does_not_lead_a_terminal_out")]),
    (
        "ways from a pod's own users to the host's",
        &[
            ("tests/real/engine/isolation.rs", "root_of_a_pod_with_users_of_its_own_is_nobody_on_the_host"),
            ("tests/real/engine/isolation.rs", "two_pods_with_users_of_their_own_share_none"),
            ("tests/real/engine/isolation.rs", "every_capability_of_a_pods_own_users_ends_at_the_host"),
            ("tests/real/engine/isolation.rs", "a_terminal_belongs_to_the_pods_own_users"),
            ("tests/real/engine/isolation.rs", "what_a_user_namespace_cannot_be_is_refused"),
        ],
    ),
    (
        "hooks that run programs of the image's, or hang",
        &[
            ("tests/real/oci/mod.rs", "a_hook_in_the_container_may_do_what_the_container_may"),
            ("tests/real/oci/mod.rs", "a_hook_that_reads_nothing_is_not_waited_for"),
        ],
    ),
    (
        "bytes that break a parser",
        &[
            ("tests/real/fuzz.rs", "no_seed_nor_what_becomes_of_it_breaks_a_target"),
            ("src/shim/wire.rs", "every_cut_message_is_an_error_and_none_panics"),
        ],
    ),
];

#[test]
fn every_class_has_its_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (class, tests) in CLASSES {
        for (file, name) in tests {
            let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
            let at = text.find(&format!("fn {name}(")).unwrap_or_else(|| panic!("{class}: {file} has no {name}"));
            let before = text[..at].trim_end_matches("async ").trim_end();
            let attributes = before.rsplit("\n\n").next().unwrap_or_default();
            assert!(attributes.contains("#[test]") || attributes.contains("#[tokio::test"), "{class}: {name} is no test");
        }
    }
}
