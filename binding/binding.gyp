{
  "targets": [
    {
      "target_name": "cmake",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": ["../CMakeLists.txt"],
          "outputs": ["<(PRODUCT_DIR)/never"],
          "action": ["node", "build.cjs"]
        }
      ]
    }
  ]
}
